"""Owns the command line of export, such as `python -m export demo --out bundles/demo`."""

import signal
import sys

import typer

from export.demo_edits import commands as demo_commands
from export.demo_masks import commands as mask_commands
from export.fastsam import commands as fastsam_commands
from export.qwen import commands as qwen_commands

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command("demo")(demo_commands.place)
app.command("demo-train")(demo_commands.train)
app.command("demo-sheet")(demo_commands.draw_sheet)
app.command("fastsam")(fastsam_commands.export_fastsam)
app.command("fastsam-demo")(fastsam_commands.place_demo)
app.command("fastsam-plan")(fastsam_commands.build_plan)
app.command("fastsam-train")(mask_commands.train)
app.command("qwen")(qwen_commands.build)
app.command("qwen-memory")(qwen_commands.estimate)


@app.callback()
def main() -> None:
    """Build what the models load."""
    # By default the signal ends the process with its drafts where they lie.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


if __name__ == "__main__":
    app()
