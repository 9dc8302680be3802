"""Owns what a device does to edits: running out of memory, failing, and giving memory back."""

import contextlib
from collections.abc import Iterator

import torch

from image_edit.errors import Code, DeviceLostError, EditError

# Texts of CUDA's errors after which no call of the process succeeds any more.
_FATAL = (
    "uncorrectable ECC error",
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "unspecified launch failure",
    "device-side assert",
)


@contextlib.contextmanager
def coded_device_errors(device: torch.device) -> Iterator[None]:
    """Codes what a device does to an edit: too little memory ends that edit, a loss all of them.

    Raises:
        EditError: RESOURCE_EXHAUSTED.
        DeviceLostError: the device's context is corrupt; every later call on it would fail too.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            raise EditError(
                Code.RESOURCE_EXHAUSTED,
                "the device is out of memory; use a smaller picture or fewer condition images",
            ) from error
        if any(text in str(error) for text in _FATAL) or _is_lost(device):
            raise DeviceLostError(
                Code.INTERNAL, "the device failed; the server starts anew"
            ) from error
        raise


def _is_lost(device: torch.device) -> bool:
    """Asks the device itself, because an error's type does not tell.

    Libraries on top of CUDA report a loss in errors of any type. And most errors of CUDA itself,
    such as a grid too large for one unlucky size, leave the device as it was.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a type of its own for accelerators' allocators; elsewhere there is just a text.
    kinds = (torch.OutOfMemoryError, MemoryError)
    texts = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, kinds) or any(text in str(error) for text in texts)
