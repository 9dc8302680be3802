"""Owns the calls of fastsam: whether it answers, and noticing when it answers again."""

import threading
import time
from collections.abc import Callable

import numpy as np

from model_kit.errors import Code, CodedError
from smart_mask.letterbox import Floats

# float32 [1, 3, side, side] -> float32 [37, anchors], float32 [32, side / 4, side / 4].
Infer = Callable[[Floats], tuple[Floats, Floats]]


class FastsamClient:
    """fastsam as requests use it, from any thread."""

    def __init__(self, infer: Infer, side: int, log_error: Callable[[str], None]) -> None:
        """Assume that the network is well until a call fails.

        Args:
            infer: makes one call; raises if fastsam does not answer.
            side: of the images, in pixels.
            log_error: takes the reasons of failures.
        """
        self._infer = infer
        self._side = side
        self._log_error = log_error
        self._has_answered = False
        self._trying = threading.Lock()
        # Start of each call without an answer yet, and of the failure; by time.monotonic.
        self._calls: dict[object, float] = {}
        self._failed_at: float | None = None

    def __call__(self, image: Floats) -> tuple[Floats, Floats]:
        """Run the network on one picture.

        Raises:
            CodedError: UNAVAILABLE: fastsam did not answer.
        """
        try:
            return self._call(image)
        except Exception as error:
            self._log_error(f"fastsam does not answer: {error}")
            raise CodedError(Code.UNAVAILABLE, "the mask network does not answer") from None

    def answers(self) -> bool:
        """Return whether fastsam answered the last call; if not, try again in the background."""
        if self._failed_at is None:
            return True
        if self._trying.acquire(blocking=False):
            threading.Thread(target=self._try, name="network", daemon=True).start()
        return False

    def is_called(self) -> bool:
        """Return whether a call has no answer yet."""
        return bool(self._calls)

    def silent_seconds(self) -> float:
        """Return how long fastsam has failed, or a call has waited, whichever is longer.

        0 while it answers. Also 0 if it has never answered, because a restart would not help.
        """
        if not self._has_answered:
            return 0.0
        since = [*self._calls.values(), self._failed_at]
        return max((time.monotonic() - at for at in since if at is not None), default=0.0)

    def _call(self, image: Floats) -> tuple[Floats, Floats]:
        call, now = object(), time.monotonic()
        self._calls[call] = now
        try:
            outputs = self._infer(image)
        except Exception:
            self._failed_at = self._failed_at or now
            raise
        finally:
            del self._calls[call]
        self._has_answered = True
        self._failed_at = None
        return outputs

    def _try(self) -> None:
        try:
            self._call(np.zeros((1, 3, self._side, self._side), np.float32))
        except Exception as error:
            self._log_error(f"fastsam does not answer yet: {error}")
        finally:
            self._trying.release()
