"""Owns what a device does to edits: running out of memory, failing, and giving memory back."""

import contextlib
from collections.abc import Iterator

import torch

from image_edit.errors import DeviceLostError
from model_kit.errors import Code, CodedError

# Texts of CUDA's errors after which no call of the process succeeds any more.
_FATAL = (
    "uncorrectable ECC error",
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "unspecified launch failure",
    "device-side assert",
)


# Bytes on a GPU for those who allocate beside torch: the contexts of this process and of Triton,
# TensorRT with the mask network, CUDA's kernels as they are loaded, cuDNN.
BESIDE_TORCH = 3 * 2**30


def leave_memory_to_others(device: torch.device) -> None:
    """Has torch run out of memory a little early, so that nobody beside it does.

    Without it a kernel that is loaded late finds no memory, in every edit again.
    """
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1 - BESIDE_TORCH / whole, device)


def give_back_memory(device: torch.device) -> None:
    """Frees the memory of tensors that are gone, which torch's allocator keeps otherwise."""
    if device.type == "cuda":
        # A device that is lost says so again at the next edit's first call, where it is coded.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


@contextlib.contextmanager
def coded_device_errors(device: torch.device) -> Iterator[None]:
    """Codes what a device does to an edit: too little memory ends that edit, a loss all of them.

    Raises:
        CodedError: RESOURCE_EXHAUSTED.
        DeviceLostError: the device's context is corrupt; every later call on it would fail too.
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
