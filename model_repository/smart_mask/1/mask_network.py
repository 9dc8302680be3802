"""Owns the calls of fastsam: whether it answers, and finding out when it does again."""

import threading
from collections.abc import Callable

import numpy as np

from mask_errors import Code, MaskError
from mask_letterbox import Floats

# float32 [1, 3, side, side] -> float32 [37, anchors], float32 [32, side / 4, side / 4].
Infer = Callable[[Floats], tuple[Floats, Floats]]


class Network:
    """fastsam as requests use it, from any thread."""

    def __init__(self, infer: Infer, side: int, log_error: Callable[[str], None]) -> None:
        """Holds it for well until a call fails.

        Args:
            infer: makes one call; raises where it is not answered.
            side: of the images, in pixels.
            log_error: takes the reasons of failures.
        """
        self._infer = infer
        self._side = side
        self._log_error = log_error
        self._answers = True
        self._trying = threading.Lock()

    def __call__(self, image: Floats) -> tuple[Floats, Floats]:
        """Runs the network on one picture.

        Raises:
            MaskError: UNAVAILABLE: it was not answered.
        """
        try:
            outputs = self._infer(image)
        except Exception as error:
            self._answers = False
            self._log_error(f"fastsam does not answer: {error}")
            raise MaskError(Code.UNAVAILABLE, "the mask network does not answer") from None
        self._answers = True
        return outputs

    def answers(self) -> bool:
        """Whether the last call was answered; where not, another is made in the background."""
        if not self._answers and self._trying.acquire(blocking=False):
            threading.Thread(target=self._try, name="network", daemon=True).start()
        return self._answers

    def _try(self) -> None:
        try:
            self._infer(np.zeros((1, 3, self._side, self._side), np.float32))
            self._answers = True
        except Exception as error:
            self._log_error(f"fastsam does not answer yet: {error}")
        finally:
            self._trying.release()
