from __future__ import annotations

from frontend.dispatch.outage import Consequences, Outage

NOTHING, ANNOUNCE = Consequences(), Consequences(announce=True)


def test_begin_and_end_are_announced_once() -> None:
    outage = Outage(longest_s=60)
    assert outage.note(0, down=False, stage=None) == NOTHING
    assert outage.note(1, down=True, stage=None) == ANNOUNCE
    assert outage.note(2, down=True, stage=None) == NOTHING
    assert outage.note(3, down=False, stage=None) == ANNOUNCE
    assert outage.note(4, down=False, stage=None) == NOTHING


def test_each_stage_is_announced_once_though_two_tritons_write_the_same_file() -> None:
    outage = Outage(longest_s=60)
    assert outage.stage is None
    outage.note(0, down=True, stage=None)
    for stage, consequences in [("a", ANNOUNCE), ("a", NOTHING), ("b", ANNOUNCE), ("a", NOTHING)]:
        assert outage.note(1, down=True, stage=stage) == consequences
    assert outage.stage == "b"
    assert outage.note(2, down=True, stage=None) == NOTHING
    assert outage.stage == "b"


def test_the_next_outage_begins_anew() -> None:
    outage = Outage(longest_s=60)
    outage.note(0, down=True, stage="a")
    outage.note(1, down=False, stage="a")
    assert outage.stage is None
    assert outage.note(100, down=True, stage="a") == ANNOUNCE
    assert outage.stage == "a"
    assert not outage.note(160, down=True, stage=None).give_up


def test_waiting_jobs_end_only_once_an_outage_has_lasted_too_long() -> None:
    outage = Outage(longest_s=60)
    assert not outage.note(5, down=True, stage=None).give_up
    assert not outage.note(65, down=True, stage=None).give_up
    assert outage.note(65.1, down=True, stage=None) == Consequences(give_up=True)
    assert outage.note(66, down=True, stage="a") == Consequences(announce=True, give_up=True)
