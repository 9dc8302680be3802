"""Owns what must be set in the process before it loads torch, so that a CPU edits fast."""

import ctypes
import os

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
# How long a thread spins before it sleeps: enough to reach the next parallel region. libgomp's
# default is 15 times as many.
_SPINS = 20_000
# Bytes; more than any block that an edit allocates and frees.
_KEEP_FREED = 2**30
# Bytes; two of the 64 MiB heaps that form a thread's arena.
_KEEP_HEAPS = 2**27


def tune_for_cpu() -> None:
    """Make OpenMP's waiting threads sleep soon, and make malloc keep what is freed.

    Threads that spin long make an edit several times slower when the server runs on the same
    cores. Threads that never spin make it a third slower on idle cores.

    By default glibc returns large blocks to the system at once. Every layer of every step would
    then page its memory in again: a fifth of the time of a 256² edit by the demo bundle.
    """
    os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_FREED)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_FREED)
        # Triton's stub makes several arenas before it loads a model, so the engine's thread has
        # one of its own. glibc unmaps an emptied heap of such an arena whatever the threshold
        # says, unless the heap lies within the padding.
        libc.mallopt(_M_TOP_PAD, _KEEP_HEAPS)
