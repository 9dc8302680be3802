"""What the process needs before torch is loaded into it, so that edits on a CPU run well there."""

import ctypes
import os

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
# Bridges the gap between two parallel regions; libgomp by itself spins 15 times as long.
_SPINS = 20_000
# Bytes; above anything that one edit allocates and frees again.
_KEEP_FREED = 2**30
# Bytes; two of the 64 MiB heaps that a thread's arena is made of.
_KEEP_HEAPS = 2**27


def tune_for_cpu() -> None:
    """Has OpenMP's threads soon sleep while they wait, and malloc keep what is freed.

    Threads that spin for long make an edit several times slower on cores that are shared with
    the server; threads that never spin make it a third slower on idle ones. And glibc gives
    large blocks back to the system at once, so that every layer of every step faults its memory
    in anew: a fifth of the time of a 256² edit by the demo bundle.
    """
    os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_FREED)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_FREED)
        # The engine's thread allocates from an arena of its own, because Triton's stub has
        # made several before any model is loaded. An emptied heap of such an arena is unmapped
        # whatever the threshold, unless it lies within the padding.
        libc.mallopt(_M_TOP_PAD, _KEEP_HEAPS)
