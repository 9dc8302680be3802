"""Owns how far an edit is and how long it will take, by the time that stages really take."""

from dataclasses import dataclass

from image_edit.messages import Stage


@dataclass(frozen=True)
class StageCosts:
    """Measured seconds of each stage of one edit."""

    conditioning: float
    encoding: float
    step: float
    decoding: float
    step_pixels: int | None = None
    """Pixels that the transformer read in a step, for all regions; None: the seconds are a guess,
    and only their ratios mean anything."""

    def expected_seconds(self, total_steps: int, step_pixels: int) -> float | None:
        """Return the seconds from ENCODING to the end of an edit; None if no edit was measured.

        Args:
            total_steps: of that edit.
            step_pixels: that the transformer reads in a step. The time is taken to grow with them.
        """
        if self.step_pixels is None:
            return None
        seconds = self.encoding + total_steps * self.step + self.decoding
        return seconds * step_pixels / self.step_pixels

    def progress(self, stage: Stage, step: int, total_steps: int) -> float:
        """Return the fraction of an edit's work that is done.

        Args:
            stage: the stage that begins or, in DENOISING, goes on.
            step: steps finished.
            total_steps: of the whole edit.

        Returns:
            0..1; never falls along an edit.
        """
        if stage is Stage.DONE:
            return 1.0
        spent = 0.0
        if stage not in (Stage.LOADING, Stage.CONDITIONING):
            spent += self.conditioning
        if stage in (Stage.DENOISING, Stage.DECODING):
            spent += self.encoding + step * self.step
        total = self.conditioning + self.encoding + total_steps * self.step + self.decoding
        return spent / total
