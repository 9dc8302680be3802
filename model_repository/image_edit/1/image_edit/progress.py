"""Owns how far an edit is, by the time that its stages really take."""

from dataclasses import dataclass

from image_edit.messages import Stage


@dataclass(frozen=True)
class StageCosts:
    """Measured seconds of each stage; only their ratios matter."""

    conditioning: float
    encoding: float
    step: float
    decoding: float

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
