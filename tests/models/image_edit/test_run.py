import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_edit.conditions import Box, Size
from image_edit.messages import Progressed, Stage, Succeeded
from image_edit.run import EditRunner
from model_kit.laps import Laps

from .edits import FakeEngine, conditions_of, region_of, request_of


def laps() -> Laps:
    """Of an edit that waited half a second and was conditioned in a tenth."""
    started = Laps()
    started.seconds = {Stage.LOADING: 0.5, Stage.CONDITIONING: 0.1}
    return started


@pytest.fixture
def engine() -> FakeEngine:
    opened = FakeEngine()
    opened.gate.open()
    return opened


def outcome(
    runner: EditRunner, size: Size = (64, 64), **inputs: Any
) -> tuple[list[Progressed | None], Succeeded]:
    messages = []
    run = runner.run(request_of(**inputs), conditions_of(size=size), laps())
    while True:
        try:
            messages.append(next(run))
        except StopIteration as end:
            return messages, end.value


def reported(messages: list[Progressed | None]) -> list[Progressed]:
    return [message for message in messages if message is not None]


def test_the_messages_of_an_edit(engine: FakeEngine) -> None:
    messages, result = outcome(EditRunner(engine, "demo"))
    assert [(message.stage, message.step) for message in reported(messages)] == [
        (Stage.ENCODING, 0),
        (Stage.DENOISING, 1),
        (Stage.DENOISING, 2),
        (Stage.DENOISING, 3),
        (Stage.DECODING, 3),
    ]
    assert {message.total_steps for message in reported(messages)} == {result.total_steps} == {3}


def test_a_unit_of_work_that_has_nothing_to_tell_still_hands_back_control(
    engine: FakeEngine,
) -> None:
    messages, _ = outcome(EditRunner(engine, "demo"))
    assert messages.count(None) == 3  # the fake prepares in one unit; the picture takes two more


def test_the_engine_forgets_an_edit_wherever_it_ends(engine: FakeEngine) -> None:
    runner = EditRunner(engine, "demo")
    outcome(runner)
    assert engine.forgotten == 1
    cut = runner.run(request_of(), conditions_of(), laps())
    next(message for message in cut if message and message.stage is Stage.DENOISING)
    cut.close()
    assert engine.forgotten == 2


def test_the_result(engine: FakeEngine) -> None:
    _, result = outcome(EditRunner(engine, "demo"), size=(300, 64))
    image = np.asarray(Image.open(io.BytesIO(result.image)))
    assert image.shape == (64, 300, 3)
    assert (image == 99).all()
    info = json.loads(result.info)
    assert info["debug_info"]["output_image_size"] == "300x64"
    assert info["debug_info"]["loaded_adapters"] == list(engine.adapters)
    assert info["model_used"] == "demo_removal"
    assert set(info["timings"]) == {
        "loading", "conditioning", "encoding", "denoising", "decoding",
    }  # fmt: skip
    assert info["timings"]["loading"] == 0.5


def test_previews_come_with_steps_and_only_when_asked(engine: FakeEngine) -> None:
    runner = EditRunner(engine, "demo")
    messages, _ = outcome(runner, PREVIEW=True)
    shown = [message.preview for message in reported(messages)]
    assert [bool(preview) for preview in shown] == [False, True, True, True, False]
    drawn = np.asarray(Image.open(io.BytesIO(shown[1])))
    assert drawn.shape == (8, 8, 3)
    assert abs(drawn.astype(int) - 55).max() <= 2
    messages, _ = outcome(runner)
    assert not any(message.preview for message in reported(messages))


def test_progress_never_falls_and_follows_the_time_that_was_measured(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 102.0, 108.0, 109.9])  # started, encoded, denoised, decoded
    runner = EditRunner(engine, "demo")
    with monkeypatch.context() as patch:
        patch.setattr("model_kit.laps.time.perf_counter", lambda: next(clock))
        outcome(runner)
    messages, _ = outcome(runner)
    progress = [message.progress for message in reported(messages)]
    assert progress == pytest.approx([0.01, 0.41, 0.61, 0.81, 0.81])  # of 10 s


def test_the_costs_of_one_edit_do_not_move_another_in_progress(engine: FakeEngine) -> None:
    runner = EditRunner(engine, "demo")
    first = runner.run(request_of(), conditions_of(), laps())
    before = reported([next(first), next(first), next(first)])
    outcome(runner)
    after = reported(list(first))
    progress = [message.progress for message in before + after]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(4 / 5)  # the costs before any was measured


def test_a_closed_run_does_no_more_work() -> None:
    engine = FakeEngine()
    engine.gate.let(2)
    run = EditRunner(engine, "demo").run(request_of(), conditions_of(), laps())
    assert [next(run) is None for _ in range(3)] == [False, True, False]
    run.close()
    assert next(run, None) is None


def test_regions_take_each_step_together_and_control_comes_back_between_them(
    engine: FakeEngine,
) -> None:
    left, right = (
        region_of(box=Box(start, 0, 64, 64), paste_mask=np.full((64, 64), 255, np.uint8))
        for start in (0, 100)
    )
    conditions = conditions_of(
        picture=np.zeros((64, 164, 3), np.uint8),
        regions=(left, right),
        composited=True,
        size=(164, 64),
    )
    run = EditRunner(engine, "demo").run(request_of(), conditions, laps())
    messages = []
    while True:
        try:
            messages.append(next(run))
        except StopIteration as end:
            result = end.value
            break
    steps = [message.step for message in reported(messages) if message.stage is Stage.DENOISING]
    assert steps == [1, 2, 3]
    assert messages.count(None) == 2 + 3 + 2 + 1  # prepared; between steps; decoded; pasted
    image = np.asarray(Image.open(io.BytesIO(result.image)))
    assert (image[:, :64] == 99).all()
    assert (image[:, 64:100] == 0).all()
    assert (image[:, 100:] == 99).all()


def test_errors_of_the_engine_come_through() -> None:
    failing = FakeEngine()
    failing.gate.let(2)
    failing.gate.fail(MemoryError("x"))
    with pytest.raises(MemoryError):
        outcome(EditRunner(failing, "demo"))


def test_a_warm_up_measures_the_engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    runner = EditRunner(engine, "demo")
    stages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("model_kit.laps.time.perf_counter", lambda: float(next(times)))
        # Every stage takes 1 s, a step half of it.
        runner.warm_up([(64, 32), (96, 64)], stages.append)
    assert stages == [
        f"warming up {adapter} at {size}"
        for size in ("64 x 32", "96 x 64")
        for adapter in engine.adapters
    ]
    messages, _ = outcome(runner, NUM_INFERENCE_STEPS=4)
    assert [message.progress for message in reported(messages)] == pytest.approx(
        [0, 1.5 / 4, 2 / 4, 2.5 / 4, 3 / 4, 3 / 4]
    )


def test_an_edit_says_before_it_begins_what_it_will_compute(engine: FakeEngine) -> None:
    runner = EditRunner(engine, "demo")
    messages, _ = outcome(runner, size=(300, 64))
    [first, *others] = reported(messages)
    plan = json.loads(first.info)
    assert plan == {"size": [300, 64], "computed_sizes": [[64, 64]], "expected_seconds": None}
    assert not any(message.info for message in others)
    messages, result = outcome(runner)
    timings = json.loads(result.info)["timings"]
    assert 0 <= json.loads(reported(messages)[0].info)["expected_seconds"] <= sum(timings.values())
