from __future__ import annotations

import time

import pytest

from model_kit import deadlines
from model_kit.deadlines import Units
from model_kit.errors import CodedError


def test_the_oldest_unit_counts_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    units = Units()
    assert units.longest_s() == 0
    with units.unit():
        now = 103.0
        with units.unit():
            now = 110.0
            assert units.longest_s() == 10
        assert units.longest_s() == 10
    assert units.longest_s() == 0


def test_a_unit_that_fails_has_ended() -> None:
    units = Units()
    with pytest.raises(ValueError, match="why"), units.unit():
        raise ValueError("why")
    assert units.longest_s() == 0


def test_a_ping_is_refused_beyond_the_deadline() -> None:
    deadlines.refuse_if_late("a thread", deadlines.LATE_S)
    with pytest.raises(CodedError, match=r"^\[UNAVAILABLE\] a thread has not .* 61 s$"):
        deadlines.refuse_if_late("a thread", 61.4)
    assert deadlines.LATE_S < deadlines.STUCK_S
