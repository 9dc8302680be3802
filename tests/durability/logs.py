"""Owns what holds of every job's log, whatever died meanwhile."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.fakes.web_client import TERMINAL

if TYPE_CHECKING:
    from tests.fakes.web_client import Json


def check_log(events: list[Json], end: str) -> None:
    """Assert that a log has one end, which is `end`, and that nothing in it falls."""
    states = [event["status"] for event in events]
    assert [state for state in states if state in TERMINAL] == [end]
    assert states[-1] == end
    for before, after in itertools.pairwise(events):
        assert before["progress"] <= after["progress"]
        assert before["current_step"] <= after["current_step"]
        assert before["restarts"] <= after["restarts"] <= 1
