"""Owns measuring single kernels: what is there, matrix multiplication, attention."""

import functools
import inspect
import json
import os
import statistics
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import ScalingType, scaled_dot_product_attention, scaled_mm

from benchmarks.gpu import machine
from image_edit.engine.quantised import Float8Linear, Int8Linear, _as_float8

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS, HEAD = 24, 128
# Tokens of 1024² with one condition, with two, of 2048² with three, each with a prompt.
LENGTHS = (9_216, 17_408, 29_696)
# How many plans are made to see how much host memory they take.
PLANS = 24
# Variables that change how cuDNN's plans are made; read when torch loads.
SWITCHES = ("", "TORCH_CUDNN_SDPA_AVOID_RECOMPILE", "TORCH_CUDNN_SDPA_DEPRIORITIZED")


def versions() -> dict[str, Any]:
    """Find what is installed, and which kernels attention takes with a mask and without."""
    device = machine.current.device
    found: dict[str, Any] = {
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cuda": torch.version.cuda,
        "recompile_limit": "recompile_limit" in inspect.signature(torch.compile).parameters,
        "scaled_mm": str(inspect.signature(scaled_mm)),
    }
    if machine.current.scale.full:
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "capability": list(torch.cuda.get_device_capability(device)),
            "memory_gib": round(properties.total_memory / machine.GIB, 1),
            "processors": properties.multi_processor_count,
            "driver": _driver(),
        }
    queries = _queries(machine.current.scale.of(4096, 64))
    mask = torch.ones(queries.shape[2], queries.shape[2], dtype=torch.bool, device=device)
    for label, given in (("without_mask", None), ("with_mask", mask)):
        with torch.profiler.profile() as profile:
            scaled_dot_product_attention(queries, queries, queries, attn_mask=given)
            machine.synchronize()
        found[f"attention_{label}"] = sorted({event.key for event in profile.key_averages()})
    found["bf16_tflops"] = round(machine.matrix_rate(), 1)
    return found | {"summary": [f"bf16 matrix rate {found['bf16_tflops']} TFLOP/s"]}


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@torch.inference_mode()
def multiplications() -> dict[str, Any]:
    """Measure a feed-forward layer of the transformer in bf16, int8 and fp8, at many heights."""
    inputs, outputs = machine.current.scale.of((3072, 12_288), (32, 64))
    with torch.device(machine.current.device):
        linear = torch.nn.Linear(inputs, outputs, dtype=torch.bfloat16)
    whole = Int8Linear(linear)
    scale = whole.scale[:, 0]
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "bf16": linear,
        "int8": whole,
        "int8_scaled_after": lambda rows: (
            torch.nn.functional.linear(rows, whole.weight.to(rows.dtype)) * scale + linear.bias
        ),
    }
    if _multiplies_float8():
        weight, weight_scale = _as_float8(linear.weight)

        def product(rows: torch.Tensor, *, fast: bool) -> torch.Tensor:
            rounded, row_scale = _as_float8(rows)
            kind = ScalingType.RowWise
            return scaled_mm(
                rounded, weight.t(), row_scale, kind, weight_scale.t(), kind,
                bias=linear.bias, output_dtype=torch.bfloat16, use_fast_accum=fast,
            )  # fmt: skip

        ways["fp8_slow_accumulation"] = lambda rows: product(rows, fast=False)
        ways["fp8_fast_accumulation"] = lambda rows: product(rows, fast=True)
        ways["fp8"] = Float8Linear(linear)
    found: dict[str, Any] = {}
    for height in machine.current.scale.of((1, 7, 1024, *LENGTHS[:2]), (1, 7)):
        rows = machine.random_tensor(height, inputs)
        exact = torch.nn.functional.linear(rows.float(), linear.weight.float(), linear.bias.float())
        norm = torch.linalg.norm(exact)
        found[str(height)] = {
            name: {
                "ms": round(machine.milliseconds(functools.partial(way, rows)), 4),
                "error": round((torch.linalg.norm(way(rows).float() - exact) / norm).item(), 5),
            }
            for name, way in ways.items()
        }
    tallest = list(found.values())[-1]
    return {
        "layer": [inputs, outputs],
        "heights": found,
        "summary": [f"{name} {each['ms']} ms" for name, each in tallest.items()],
    }


def _multiplies_float8() -> bool:
    """Return whether torch multiplies 8-bit floats here; before 2.13 it did so only on GPUs."""
    if machine.current.scale.full:
        return torch.cuda.get_device_capability(machine.current.device) >= (8, 9)
    return torch.__version__ >= "2.13"


@torch.inference_mode()
def attention() -> dict[str, Any]:
    """Measure attention by kernel and length, and the first call at a new length."""
    found: dict[str, Any] = {}
    for length in machine.current.scale.of(LENGTHS, (64,)):
        queries = _queries(length)
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            if backend is SDPBackend.CUDNN_ATTENTION and not machine.current.scale.full:
                continue
            with sdpa_kernel(backend):
                elapsed = machine.milliseconds(
                    functools.partial(scaled_dot_product_attention, queries, queries, queries)
                )
            found.setdefault(str(length), {})[backend.name] = round(elapsed, 3)
    switched = {switch or "as_is": _in_a_new_process(switch) for switch in SWITCHES}
    plain = switched["as_is"]
    return {
        "ms": found,
        "first_ms": switched,
        "summary": [
            f"a new length costs {plain['new_length']} ms and {plain['plan_mib']} MiB of host"
            f" memory, in another thread {plain['thread']} ms"
        ],
    }


def _queries(length: int) -> torch.Tensor:
    """Return [1, heads, length, dim], laid out as the transformer's are: one token after another.

    cuDNN can use a plan for other lengths only in this layout.
    """
    return machine.random_tensor(1, length, HEADS, HEAD).transpose(1, 2)


def _in_a_new_process(switch: str) -> dict[str, float]:
    full = "full" if machine.current.scale.full else "tiny"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.kernels", full],
        env=os.environ | ({switch: "1"} if switch else {}),
        capture_output=True,
        text=True,
        timeout=machine.CHILD_S,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.inference_mode()
def first_calls() -> dict[str, float]:
    """Time calls in this process: the first, those at new lengths, one in a new thread.

    Returns:
        Milliseconds of a call. `new_length` is the median of `PLANS` calls, `known_length` of the
        same lengths again. `plan_mib`: MiB of host memory for each new length.
    """
    start = machine.current.scale.of(9_216, 64)
    lengths = [start + 13 * number for number in range(1, PLANS + 1)]

    def call(length: int) -> float:
        queries = _queries(length)
        with torch.inference_mode():
            return machine.first_milliseconds(
                lambda: scaled_dot_product_attention(queries, queries, queries)
            )

    found = {"first": call(start), "again": call(start)}
    before = psutil.Process().memory_info().rss
    found["new_length"] = statistics.median(map(call, lengths))
    found["plan_mib"] = (psutil.Process().memory_info().rss - before) / 2**20 / PLANS
    found["known_length"] = statistics.median(map(call, lengths))
    thread = threading.Thread(target=lambda: found.update(thread=call(start)))
    thread.start()
    thread.join()
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    machine.use_as_told()
    print(json.dumps(first_calls()))
