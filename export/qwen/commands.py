"""Owns the commands of the real model: its bundle, and the GPU memory that it needs."""

from math import isqrt
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from export.console import one_line_errors
from export.qwen import hub as qwen_hub

LORA = (
    "LoRA: a file, or owner/name:file; a second one after a comma, such as Lightning's, joins it."
)

# torch and diffusers take seconds to import, so each command imports what it needs.


def build(
    out: Annotated[Path, typer.Option(help="The bundle folder.")] = Path(
        "bundles/qwen-image-edit-2509"
    ),
    insertion: Annotated[str, typer.Option(envvar="MODEL_FILE_INSERTION", help=LORA)] = "",
    removal: Annotated[str, typer.Option(envvar="MODEL_FILE_REMOVAL", help=LORA)] = "",
    white_balance: Annotated[str, typer.Option(envvar="MODEL_FILE_WHITE_BALANCE", help=LORA)] = "",
    base: Annotated[str, typer.Option(help="The base on the hub.")] = qwen_hub.BASE,
    revision: Annotated[str, typer.Option(help="Its commit.")] = qwen_hub.REVISION,
) -> None:
    """Download Qwen-Image-Edit-2509 (58 GB), check the adapters against it, write the bundle.

    A broken download continues. HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are respected. The server
    answers 501 to a task without an adapter.
    """
    console = Console()
    sources = {"insertion": insertion, "removal": removal, "white-balance": white_balance}
    given = {task_type: source for task_type, source in sources.items() if source}
    with one_line_errors(console):
        from export.qwen import bundle as qwen_bundle

        manifest = qwen_bundle.build(
            out,
            base,
            revision,
            given,
            on_stage=lambda stage: console.print(f"{stage}...", soft_wrap=True),
        )
    console.print(f"{out}: {manifest['base']}", soft_wrap=True)
    for task_type, source in sources.items():
        adapter = manifest["adapters"].get(task_type)
        console.print(
            f"  {task_type}: rank {adapter['ranks']}, {adapter['layers']} layers, {source}"
            + _compiled(adapter.get("kinds", 1))  # older bundles have no such key
            if adapter
            else f"  {task_type}: no adapter, answered 501",
            soft_wrap=True,
        )


def _compiled(kinds: int) -> str:
    """Warn of a first start that takes long."""
    return f"; makes {kinds} kinds of block, each compiled at the first start" if kinds > 1 else ""


def estimate(
    repository: Annotated[Path, typer.Option(help="The model's folder.")] = Path(
        "model_repository/image_edit"
    ),
    conditions: Annotated[int, typer.Option(help="How many condition images a job has.")] = 3,
    rank: Annotated[int, typer.Option(help="Rank of each of the three adapters.")] = 64,
) -> None:
    """Print what the full-size model needs of a GPU in each profile. No weights, no GPU."""
    console = Console()
    from export.qwen import memory as qwen_memory

    sizes = qwen_memory.measure_sizes()
    for name, count in sizes.parameters.items():
        console.print(f"{name}: {count / 1e9:.3f} billion parameters", highlight=False)
    per_rank, layers = sizes.lora
    console.print(
        f"adapter: {layers} layers, {rank * per_rank / 1e6:.0f} million parameters at rank {rank}",
        highlight=False,
    )
    table = Table("profile", "output", "weights", "encode", "step", "decode", "in all", title="GiB")
    for path in (repository / "config.pbtxt", *sorted(repository.glob("configs/*.pbtxt"))):
        profile = qwen_memory.read_profile(path)
        if not profile.on_gpu:
            continue
        weights = sum(qwen_memory.weight_bytes(sizes, profile, adapters=3, rank=rank).values())
        for side in (1024, 2048):
            condition_side = isqrt(profile.condition_area or side * side)
            job = qwen_memory.EditSizes(side, conditions, condition_side)
            with console.status(f"{profile.name}, {side} x {side}"):
                peaks = qwen_memory.measure_peaks(
                    job, vae_tiling=profile.vae_tiling, step_cache=profile.step_cache
                )
            stages = (peaks.encode, peaks.step, peaks.decode)
            figures = (weights, *stages, weights + max(stages))
            gib = (f"{figure / 2**30:.1f}" for figure in figures)
            table.add_row(profile.name, f"{side} x {side}", *gib)
    console.print(table)
    console.print("Not included: the device's context, the kernels' workspaces, fragmentation.")
