"""Owns measuring guided steps of the full-size transformer, with random weights."""

import functools
import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from peft import LoraConfig

from benchmarks.gpu import machine
from export.qwen import published
from image_edit.engine.engine import EditEngine, EditState, Prompt
from image_edit.engine.positions import keep_few_places, turn_in_real_numbers
from image_edit.engine.quantised import quantise
from image_edit.engine.tuning import after_adapters
from image_edit.settings import Tuning

ADAPTERS = ("insertion", "removal", "white-balance")
RANK = 64
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
TINY = {
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "axes_dims_rope": [8, 12, 12],
}
TOKEN_SIDE = 16
# Side of the output and number of condition images of 1024².
JOBS = ((1024, 1), (1024, 3), (2048, 3))
WORDS = (310, 190)
SPARE_STEPS = 40


class Bench:
    """An engine with a transformer of random weights, and nothing else of a pipeline."""

    def __init__(self, quantization: str = "none") -> None:
        """Build it; a quantised one gets the same weights before they are rounded."""
        config = published.TRANSFORMER | machine.current.scale.of({}, TINY)
        self.transformer = machine.random_model(lambda: QwenImageTransformer2DModel(**config))
        self.config = self.transformer.config
        keep_few_places(self.transformer)
        if quantization != "none":
            quantise(self.transformer, quantization, str(machine.current.device))
        for name in ADAPTERS:
            self.transformer.add_adapter(
                LoraConfig(
                    r=machine.current.scale.of(RANK, 4),
                    target_modules=list(TARGETS),
                    init_lora_weights=False,
                ),
                adapter_name=name,
            )
        self.transformer.to(torch.bfloat16)
        pipeline = SimpleNamespace(
            transformer=self.transformer,
            device=machine.current.device,
            set_adapters=self.transformer.set_adapters,
        )
        self.engine = EditEngine(
            SimpleNamespace(  # type: ignore[arg-type]
                pipeline=pipeline, preview=None, adapters={name: (name,) for name in ADAPTERS}
            ),
            condition_area=None,
            scheduler_shift=3.0,
        )

    def state(self, side: int, conditions: int, adapter: str = "removal") -> EditState:
        """Make an edit before its first step, with random prompts and pictures."""
        side, condition = machine.current.scale.of((side, 1024), (side // 16, 32))
        shapes = [(1, each // TOKEN_SIDE, each // TOKEN_SIDE) for each in [side]]
        shapes += [(1, condition // TOKEN_SIDE, condition // TOKEN_SIDE)] * conditions
        count = shapes[0][1] * shapes[0][2]
        others = sum(rows * columns for _, rows, columns in shapes[1:])
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(
            sigmas=np.linspace(1.0, 1 / SPARE_STEPS, SPARE_STEPS), device=machine.current.device
        )
        scheduler.set_begin_index(0)
        prompts = [
            Prompt(
                machine.random_tensor(
                    1, words + 196 * conditions, self.config.joint_attention_dim, seed=words
                ),
                None,
            )
            for words in WORDS
        ]
        return EditState(
            adapters=(adapter,),
            prompt=prompts[0],
            negative_prompt=prompts[1],
            true_cfg_scale=4.0,
            guidance=None,
            latents=machine.random_tensor(1, count, 64, seed=1),
            image_latents=machine.random_tensor(1, others, 64, seed=2),
            image_shapes=[shapes],
            scheduler=scheduler,
            size=(side, side),
        )

    def step_milliseconds(self, state: EditState) -> float:
        """Return the median of a guided step, with the wait for its end."""
        return machine.milliseconds(lambda: self.engine.step(state))


def floating_operations(network: Any, state: EditState) -> float:
    """Count the multiplications and additions of a guided step, in matrices and attention."""
    blocks, width = network.config.num_layers, network.inner_dim
    pictures = state.latents.shape[1] + state.image_latents.shape[1]
    total = 0.0
    assert state.negative_prompt is not None
    for prompt in (state.prompt, state.negative_prompt):
        tokens = pictures + prompt.embeddings.shape[1]
        # Of each token and block: 4 projections and twice 4 widths of feed-forward.
        total += blocks * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)
    return total


def eager() -> dict[str, Any]:
    """Measure guided steps without compilation."""
    bench = Bench()
    found = {}
    for side, conditions in JOBS:
        state = bench.state(side, conditions)
        with machine.peak() as peak:
            elapsed = bench.step_milliseconds(state)
        found[f"{side}, {conditions}"] = {
            "ms": round(elapsed, 1),
            "tflops": round(floating_operations(bench.transformer, state) / elapsed / 1e9, 1),
        } | {key: round(value, 2) for key, value in peak.items()}
    state = bench.state(1024, 1)
    switches = [
        machine.first_milliseconds(functools.partial(bench.transformer.set_adapters, [name]))
        for name in ADAPTERS
    ]
    return {
        "jobs": found,
        "switch_ms": [round(each, 1) for each in switches],
        "synchronizations": _synchronizations(bench, state),
        "idle": _idle(bench, state),
        "summary": [f"{job}: {each['ms']} ms a guided step" for job, each in found.items()],
    }


def compiled() -> dict[str, Any]:
    """Measure the compilation for each adapter, then steps of many lengths in another thread."""
    bench = Bench()
    found = _compile(bench, Tuning("bfloat16", compile_blocks=True))
    graphs = _graphs()
    sides = (1024, 512, 768, 1280, 1536, 896, 640, 2048)
    with ThreadPoolExecutor(1) as thread:
        first = [
            thread.submit(
                machine.first_milliseconds,
                functools.partial(bench.engine.step, bench.state(side, 1 + side % 3)),
            ).result()
            for side in machine.current.scale.of(sides, sides[:2])
        ]
    found |= {
        "graphs": graphs,
        "graphs_after_other_lengths": _graphs(),
        "first_step_ms_by_length": [round(each, 1) for each in first],
        "step_ms": round(bench.step_milliseconds(bench.state(1024, 1)), 1),
    }
    return found | {
        "summary": [
            f"{found['step_ms']} ms a guided step, {graphs} graphs, "
            f"{found['graphs_after_other_lengths'] - graphs} more for other lengths"
        ]
    }


@torch.inference_mode()
def float8() -> dict[str, Any]:
    """Measure compiled 8-bit floats, and how far their prediction is from that of bfloat16."""
    plain = Bench()
    state = plain.state(1024, 1)
    plain.engine.step(state)
    expected = state.velocity
    assert expected is not None
    del plain, state
    machine.forget()
    # Older versions of torch multiply 8-bit floats only on GPUs.
    kind = machine.current.scale.of("fp8", "int8")
    bench = Bench(kind)
    found = _compile(bench, Tuning("bfloat16", quantization=kind, compile_blocks=True))
    state = bench.state(1024, 1)
    bench.engine.step(state)
    assert state.velocity is not None
    distance = torch.linalg.norm((state.velocity - expected).float()) / torch.linalg.norm(
        expected.float()
    )
    with machine.peak() as peak:
        step = bench.step_milliseconds(bench.state(1024, 1))
    found |= {
        "step_ms": round(step, 1),
        "distance": round(distance.item(), 4),
        "peak": {key: round(value, 2) for key, value in peak.items()},
    }
    return found | {
        "summary": [f"{found['step_ms']} ms a guided step, {found['distance']} from bfloat16"]
    }


def _compile(bench: Bench, tuning: Tuning) -> dict[str, Any]:
    """Compile as a load does; a dry run uses the eager backend, which needs no compiler."""
    turn_in_real_numbers(bench.transformer)
    compile_blocks = bench.transformer.compile_repeated_blocks
    if not machine.current.scale.full:
        compile_blocks = functools.partial(compile_blocks, backend="eager")
    if "recompile_limit" not in inspect.signature(torch.compile).parameters:
        compile_blocks = functools.partial(_compile_on_old_torch, compile_blocks)
    bench.transformer.compile_repeated_blocks = compile_blocks
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    after_adapters(bench.engine._pipeline, tuning)
    seconds = [
        machine.first_milliseconds(
            functools.partial(bench.engine.step, bench.state(1024, 1, adapter=name))
        )
        / 1e3
        for name in ADAPTERS
    ]
    return {"seconds_by_adapter": [round(each, 1) for each in seconds]}


def _compile_on_old_torch(compile_blocks: Any, *, recompile_limit: int, **options: Any) -> None:
    """Set the limit in torch's configuration: before 2.13 it is the only place for it."""
    torch._dynamo.config.recompile_limit = recompile_limit
    compile_blocks(**options)


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _synchronizations(bench: Bench, state: EditState) -> int:
    """Count how often a step makes the host wait for the device, without the wait at its end."""
    if not machine.current.scale.full:
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            bench.engine.step(state)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return len(caught)


def _idle(bench: Bench, state: EditState) -> float:
    """Return the fraction of a step during which the device runs no kernel."""
    if not machine.current.scale.full:
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        elapsed = machine.first_milliseconds(lambda: bench.engine.step(state))
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e3
    return round(max(0.0, 1 - float(busy) / elapsed), 3)
