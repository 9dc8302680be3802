from dataclasses import replace

import pytest

from image_edit.messages import Stage
from image_edit.progress import StageCosts

COSTS = StageCosts(conditioning=1.0, encoding=2.0, step=3.0, decoding=4.0)


@pytest.mark.parametrize(
    ("stage", "step", "progress"),
    [
        (Stage.LOADING, 0, 0.0),
        (Stage.CONDITIONING, 0, 0.0),
        (Stage.ENCODING, 0, 1 / 13),
        (Stage.DENOISING, 1, 6 / 13),
        (Stage.DENOISING, 2, 9 / 13),
        (Stage.DECODING, 2, 9 / 13),
        (Stage.DONE, 2, 1.0),
    ],
)
def test_progress_is_the_share_of_the_time(stage: Stage, step: int, progress: float) -> None:
    assert COSTS.progress(stage, step, total_steps=2) == pytest.approx(progress)


def test_only_the_end_is_all() -> None:
    assert COSTS.progress(Stage.DECODING, 100, 100) < 1.0


def test_a_guess_gives_no_seconds() -> None:
    assert COSTS.expected_seconds(2, 1000) is None


def test_the_expected_time_grows_with_what_a_step_reads_and_the_steps() -> None:
    measured = replace(COSTS, step_pixels=1000)
    assert measured.expected_seconds(2, 1000) == 12
    assert measured.expected_seconds(2, 2000) == 24
    assert measured.expected_seconds(4, 1000) == 18
