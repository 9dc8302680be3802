"""Owns the command `python -m benchmarks gpu`: the measurements in the order of their worth."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import (
    edits,
    kernels,
    machine,
    memory,
    text_encoder,
    transformer,
    vae,
    whole,
)
from benchmarks.gpu.runner import Measurement, run_all
from benchmarks.gpu_table import RESULTS, table

BUDGET_S = 550.0
DRY_RUN_S = 600.0


def _masks() -> dict[str, Any]:
    # Imported late, because it needs onnx.
    from benchmarks.gpu import masks

    return masks.measure()


def _server() -> dict[str, Any]:
    # Imported late, because it needs the packages of the frontend.
    from benchmarks.gpu import server

    return server.measure()


MEASUREMENTS = (
    Measurement("versions", 10, "whether the rest means anything", (), kernels.versions),
    Measurement("demo-edits", 50, "every trivial failure", (1,), edits.measure),
    Measurement("whole-edits", 75, "diffusers beside us, at full size", (1,), whole.measure),
    Measurement("multiplications", 40, "int8's fold, fp8's sums", (3,), kernels.multiplications),
    Measurement("attention", 45, "cuDNN's plans on Hopper", (3,), kernels.attention),
    Measurement("vae", 50, "the VAE's memory, tiles, channels_last", (1,), vae.measure),
    Measurement("steps", 60, "step time and peak at 2048²", (1, 6), transformer.eager),
    Measurement("compiled-steps", 90, "COMPILE, graphs", (1, 3), transformer.compiled),
    Measurement("fp8-steps", 75, "the h100 profile", (3,), transformer.float8),
    Measurement("text-encoder", 35, "what both prompts share", (1, 3), text_encoder.measure),
    Measurement("out-of-memory", 20, "going on after running out", (1,), memory.measure),
    Measurement("masks", 120, "FastSAM without TensorRT", (4,), _masks),
    Measurement("server", 120, "events and cancels", (2,), _server),
)
# What fits into one loan of a machine; the others are run by name.
USUAL = [each.name for each in MEASUREMENTS if each.name not in ("masks", "server")]


def main(arguments: Sequence[str]) -> int:
    """Measure, or print the table of what was measured.

    Returns:
        The exit status: 0 if every measurement has a result.
    """
    parser = argparse.ArgumentParser("python -m benchmarks gpu", description=__doc__)
    names = [each.name for each in MEASUREMENTS]
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=", ".join(names) + "; by default all but masks and server",
    )
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    parser.add_argument("--table", action="store_true", help="print what the files there say")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(options.out))
        return 0
    for name in options.names:
        if name not in names:
            parser.error(f"there is no {name}; there are {', '.join(names)}")
    if options.dry_run and options.out == RESULTS:
        parser.error("--dry-run needs an --out of its own: its figures mean nothing")
    if not options.dry_run and not machine.has_gpu():
        parser.error("there is no GPU that torch can use; --dry-run needs none")
    machine.use(full=not options.dry_run)
    chosen = [each for each in MEASUREMENTS if each.name in (options.names or USUAL)]
    if options.dry_run:
        # It looks for mistakes, on cores that may be busy with anything else.
        chosen = [replace(each, seconds=DRY_RUN_S) for each in chosen]
        options.budget = DRY_RUN_S * len(chosen)

    def go_on(rest: Sequence[str], budget: float) -> None:
        command = [sys.executable, "-m", "benchmarks", "gpu", "--budget", f"{budget:.0f}"]
        subprocess.run([*command, "--out", str(options.out), *rest], check=False)

    good = run_all(chosen, budget=options.budget, out=options.out, arguments=arguments, go_on=go_on)
    return 0 if good else 1
