"""Owns what a device does to edits: running out of memory, failing, and giving memory back."""

import contextlib
from collections.abc import Iterator

import torch

from image_edit.errors import DeviceLostError
from model_kit.errors import Code, CodedError

# CUDA errors that contain one of these are fatal: all later calls of the process fail too.
_FATAL = (
    "uncorrectable ECC error",
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "unspecified launch failure",
    "device-side assert",
)


# Bytes on a GPU that torch leaves to others: the contexts of this process and of Triton, TensorRT
# with the mask network, CUDA's kernels, cuDNN.
BESIDE_TORCH = 3 * 2**30


def leave_memory_to_others(device: torch.device) -> None:
    """Make torch run out of memory a little early, so that nothing beside it does.

    Otherwise a kernel that CUDA loads late would find no memory, and so would every later edit.
    """
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1 - BESIDE_TORCH / whole, device)


def give_back_memory(device: torch.device) -> None:
    """Free the memory of tensors that no longer exist; torch's allocator would keep it."""
    if device.type == "cuda":
        # A lost device fails again in the next edit, where `coded_device_errors` handles it.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


@contextlib.contextmanager
def coded_device_errors(device: torch.device) -> Iterator[None]:
    """Turn a device's failures into coded errors.

    Raises:
        CodedError: RESOURCE_EXHAUSTED, the device has too little memory for this edit.
        DeviceLostError: the device's context is corrupt, so every later edit would fail too.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            raise CodedError(
                Code.RESOURCE_EXHAUSTED,
                "the device is out of memory; use a smaller picture or fewer condition images",
            ) from error
        if any(text in str(error) for text in _FATAL) or _is_lost(device):
            raise DeviceLostError(
                Code.INTERNAL, "the device failed; the server restarts"
            ) from error
        raise


def _is_lost(device: torch.device) -> bool:
    """Ask the device itself, because an error's type does not show whether the device is lost.

    Libraries on top of CUDA report a loss in errors of any type. Most errors of CUDA itself, such
    as a grid that is too large for one size, do no harm to the device.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _is_out_of_memory(error: Exception) -> bool:
    # torch has its own type only for accelerators' allocators; other allocators have only a text.
    kinds = (torch.OutOfMemoryError, MemoryError)
    # cuBLAS says CUBLAS_STATUS_ALLOC_FAILED, cuDNN since 9.0 ..._DEVICE_ALLOCATION_FAILED.
    texts = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
    return isinstance(error, kinds) or any(text in str(error) for text in texts)
