"""Owns the device under measurement: its clock, its memory, and models of random weights on it."""

import argparse
import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

WARM_UPS = 2
REPEATS = 3
GIB = 2**30
# Seconds that a process may take which a measurement starts; on busy cores, torch's import alone
# takes a minute or two.
CHILD_S = 300


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    full: bool
    """False: tiny shapes on the CPU, to find mistakes in the measurements themselves."""

    def of(self, full: Any, tiny: Any) -> Any:
        """Return one of two values."""
        return full if self.full else tiny


@dataclass
class Device:
    """The device under measurement, and how large everything on it is."""

    device: torch.device
    scale: Scale


current = Device(torch.device("cpu"), Scale(full=False))


def use(*, full: bool) -> None:
    """Choose the GPU and full size, or the CPU and tiny shapes."""
    current.scale = Scale(full)
    current.device = torch.device("cuda:0" if full else "cpu")


def use_as_told() -> None:
    """Choose by the argument of this process, which a measurement has started."""
    parser = argparse.ArgumentParser(description="Run one part of `python -m benchmarks gpu`.")
    parser.add_argument("scale", choices=["full", "tiny"])
    use(full=parser.parse_args().scale == "full")


def has_gpu() -> bool:
    """Return whether torch can use a GPU here."""
    return torch.cuda.is_available()


def lost() -> bool:
    """Return whether the device no longer answers, so that only a new process can go on."""
    try:
        synchronize()
    except RuntimeError:
        return True
    return False


def name() -> str:
    """Return the device's name."""
    return torch.cuda.get_device_name(0) if current.scale.full else "dry run on a CPU"


def synchronize() -> None:
    """Wait until the device has done all its work."""
    if current.scale.full:
        torch.cuda.synchronize(current.device)


def forget() -> None:
    """Free what the last measurement left on the device."""
    gc.collect()
    if current.scale.full:
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0, current.device)


def milliseconds(
    work: Callable[[], Any], *, warm_ups: int = WARM_UPS, repeats: int = REPEATS
) -> float:
    """Return the median time of work on the device, by the device's clock if it has one."""
    if not current.scale.full:
        return _one(work)
    for _ in range(warm_ups):
        work()
    return statistics.median(_one(work) for _ in range(repeats))


def first_milliseconds(work: Callable[[], Any]) -> float:
    """Return the time of work that is done for the first time, by the host's clock."""
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return 1e3 * (time.perf_counter() - started)


def matrix_rate() -> float:
    """Return how many TFLOP/s a product of large bfloat16 matrices reaches."""
    side = current.scale.of(8192, 128)
    square = random_tensor(side, side)
    return float(2 * side**3 / milliseconds(lambda: square @ square) / 1e9)


@contextlib.contextmanager
def peak() -> Iterator[dict[str, float]]:
    """Yield a dict that gets the peaks at the end: `allocated` and `reserved`, in GiB.

    What was allocated before does not count.
    """
    found: dict[str, float] = {}
    if not current.scale.full:
        yield found
        found |= {"allocated": 0.0, "reserved": 0.0}
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(current.device)
    before = torch.cuda.memory_allocated(current.device), torch.cuda.memory_reserved(current.device)
    yield found
    synchronize()
    found |= {
        "allocated": (torch.cuda.max_memory_allocated(current.device) - before[0]) / GIB,
        "reserved": (torch.cuda.max_memory_reserved(current.device) - before[1]) / GIB,
    }


def random_model(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """Build a model in bfloat16; draw its weights on the device, never on the host.

    Args:
        build: makes it. Its parameters get no memory; its buffers and plain tensors do.
        seed: of the weights.
    """
    with init_empty_weights(include_buffers=False):
        model = build().eval()
    generator = torch.Generator(current.device).manual_seed(seed)
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                drawn = torch.empty(
                    parameter.shape, dtype=torch.bfloat16, device=current.device
                ).normal_(std=0.02, generator=generator)
                if parameter.ndim == 1 and "bias" not in key:
                    drawn += 1  # of a norm
                module._parameters[key] = nn.Parameter(drawn, requires_grad=False)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = buffer.to(current.device)
    return model


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw normal bfloat16 on the device, because zeros multiply faster than pictures."""
    generator = torch.Generator(current.device).manual_seed(seed)
    return torch.randn(*shape, dtype=torch.bfloat16, device=current.device, generator=generator)


def _one(work: Callable[[], Any]) -> float:
    if not current.scale.full:
        return first_milliseconds(work)
    began, ended = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    began.record()
    work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended))
