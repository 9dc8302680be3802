"""Owns how far a request is: the time of its stages, and whether it must go on."""

from collections.abc import Callable

from model_kit.laps import Laps


class Progress:
    """Passed through the stages of one request."""

    def __init__(self, laps: Laps, check: Callable[[], None]) -> None:
        """Join a stopwatch and a check.

        Args:
            laps: gets the time of each stage.
            check: raises CodedError, CANCELLED, if the request must end.
        """
        self.laps = laps
        self.check = check

    def note(self, stage: str) -> None:
        """Note the end of a stage.

        Raises:
            CodedError: CANCELLED: the request must end here.
        """
        self.laps.note(stage)
        self.check()
