"""What the process needs before torch is loaded into it, so that edits on a CPU run well there."""

import ctypes
import os

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Bytes; above anything that one edit allocates and frees again.
_KEEP_FREED = 2**30


def tune_for_cpu() -> None:
    """Has OpenMP's threads sleep while they wait, and malloc keep what is freed.

    Spinning threads make an edit several times slower on cores that are shared with the server.
    And glibc gives large blocks back to the system at once, so that every layer of every step
    faults its memory in anew: a fifth of the time of a 256² edit by the demo bundle.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_FREED)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_FREED)
        # One arena: a thread's own arena would go by limits of its own.
        libc.mallopt(_M_ARENA_MAX, 1)
