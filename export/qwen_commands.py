"""The commands that concern the real model: its bundle, and what it needs of a GPU."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from export import qwen_hub
from export.manifest import BundleError

# torch and diffusers take seconds to import: each command imports what it needs.


def build(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = Path(
        "bundles/qwen-image-edit-2509"
    ),
    insertion: Annotated[
        str, typer.Option(envvar="MODEL_FILE_INSERTION", help="LoRA: a file, or owner/name:file.")
    ] = "",
    removal: Annotated[
        str, typer.Option(envvar="MODEL_FILE_REMOVAL", help="LoRA: a file, or owner/name:file.")
    ] = "",
    white_balance: Annotated[
        str,
        typer.Option(envvar="MODEL_FILE_WHITE_BALANCE", help="LoRA: a file, or owner/name:file."),
    ] = "",
    base: Annotated[str, typer.Option(help="The base on the hub.")] = qwen_hub.BASE,
    revision: Annotated[str, typer.Option(help="Its commit.")] = qwen_hub.REVISION,
) -> None:
    """Download Qwen-Image-Edit-2509 (58 GB), check the adapters against it, write the bundle.

    A download that broke off goes on. HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are respected. A task
    without an adapter is answered 501.
    """
    console = Console()
    sources = {"insertion": insertion, "removal": removal, "white-balance": white_balance}
    given = {task_type: source for task_type, source in sources.items() if source}
    try:
        from export import qwen_bundle

        manifest = qwen_bundle.build(
            out, base, revision, given, on_stage=lambda stage: console.print(f"{stage}...")
        )
    except BundleError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{out}: {manifest['base']}", soft_wrap=True)
    for task_type, source in sources.items():
        adapter = manifest["adapters"].get(task_type)
        console.print(
            f"  {task_type}: rank {adapter['ranks']}, {adapter['layers']} layers, {source}"
            if adapter
            else f"  {task_type}: no adapter, answered 501",
            soft_wrap=True,
        )
