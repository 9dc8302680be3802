from __future__ import annotations

from frontend.jobs.outage import Outage


def test_a_stage_is_told_once_though_two_tritons_write_the_same_file() -> None:
    outage = Outage(longest_s=60)
    assert outage.stage is None
    outage.note(0, down=True, stage=None)
    for stage, told in [("a", "a"), ("a", "a"), ("b", "b"), ("a", "b"), (None, "b")]:
        outage.note(1, down=True, stage=stage)
        assert outage.stage == told


def test_the_next_outage_begins_anew() -> None:
    outage = Outage(longest_s=60)
    outage.note(0, down=True, stage="a")
    outage.note(1, down=False, stage="a")
    assert outage.stage is None
    assert not outage.note(100, down=True, stage="a")
    assert outage.stage == "a"
    assert not outage.note(160, down=True, stage=None)


def test_waiting_jobs_end_only_once_an_outage_has_lasted_too_long() -> None:
    outage = Outage(longest_s=60)
    assert not outage.note(4, down=False, stage=None)
    assert not outage.note(5, down=True, stage=None)
    assert not outage.note(65, down=True, stage=None)
    assert outage.note(65.1, down=True, stage=None)
    assert outage.note(66, down=True, stage="a")
