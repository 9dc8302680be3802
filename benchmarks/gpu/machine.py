"""Owns the device under measurement: its clock, its memory, and models of random weights on it."""

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


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    full: bool
    """False: tiny shapes on the CPU, to find mistakes in the measurements themselves."""

    def of(self, full: Any, tiny: Any) -> Any:
        """One of two values."""
        return full if self.full else tiny


@dataclass
class Device:
    """What is measured on."""

    device: torch.device
    scale: Scale


current = Device(torch.device("cpu"), Scale(full=False))


def use(*, full: bool) -> None:
    """Chooses the GPU and full size, or the CPU and tiny shapes."""
    current.scale = Scale(full)
    current.device = torch.device("cuda:0" if full else "cpu")


def has_gpu() -> bool:
    """Whether torch can use a GPU here."""
    return torch.cuda.is_available()


def lost() -> bool:
    """Whether the device answers no more, so that only a new process can go on."""
    try:
        synchronize()
    except RuntimeError:
        return True
    return False


def name() -> str:
    """The device in words."""
    return torch.cuda.get_device_name(0) if current.scale.full else "dry run on a CPU"


def synchronize() -> None:
    """Waits until the device has done all that it was given."""
    if current.scale.full:
        torch.cuda.synchronize(current.device)


def forget() -> None:
    """Frees what the last measurement left on the device."""
    gc.collect()
    if current.scale.full:
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0, current.device)


def milliseconds(
    work: Callable[[], Any], *, warm_ups: int = WARM_UPS, repeats: int = REPEATS
) -> float:
    """Median time of work on the device, by its own clock where it has one."""
    if not current.scale.full:
        return _one(work)
    for _ in range(warm_ups):
        work()
    return statistics.median(_one(work) for _ in range(repeats))


def first_milliseconds(work: Callable[[], Any]) -> float:
    """Time of work that is done for the first time, by the host's clock."""
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return 1e3 * (time.perf_counter() - started)


@contextlib.contextmanager
def peak() -> Iterator[dict[str, float]]:
    """Fills in GiB: `allocated` and `reserved` at most, beside what was there before."""
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
    """Builds a model in bfloat16 whose weights are drawn on the device, and never on the host.

    Args:
        build: makes it; its parameters get no memory, its buffers and plain tensors do.
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
    """bfloat16 on the device, normal: zeros would be multiplied faster than pictures."""
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
