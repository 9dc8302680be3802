"""Owns giving memory back to the machine after large work.

The allocator keeps what was freed, in pieces between what is still in use. After a few large
pictures that is a gigabyte, of which nobody has any use.
"""

import contextlib
import ctypes
import threading

AFTER_BYTES = 2**26
"""Large work since the last time that memory was given back."""


class Returns:
    """Gives memory back now and then; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._freed = 0

    def freed(self, size: int) -> None:
        """Take note of work that has ended, and give its memory back if it is time.

        Args:
            size: bytes that the work had, roughly.
        """
        with self._lock:
            self._freed += size
            if self._freed < AFTER_BYTES:
                return
            self._freed = 0
        give_back()


def give_back() -> None:
    """Give all free memory back to the machine; it takes some milliseconds."""
    # Other C libraries than glibc have no such function.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
