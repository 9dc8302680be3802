import pytest

from model_kit.laps import Laps


def test_each_stage_gets_the_time_since_the_last_note(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr("model_kit.laps.time.perf_counter", lambda: next(times))
    clock = Laps()
    clock.note("queue")
    clock.note("decode")
    clock.note("queue")
    assert clock.seconds == {"queue": 5.0, "decode": 2.0}
    assert list(clock.seconds) == ["queue", "decode"]
