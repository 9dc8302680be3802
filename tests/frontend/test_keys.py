from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from frontend import keys
from frontend.keys import Keys, KeysError
from tests.fakes.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

A, B = "a" * 64, "b" * 64
TASK = "3f0c"


def written(path: Path, *entries: str) -> Path:
    """Write a keys file beside the one before and put it in its place, as an operator should."""
    new = path.with_suffix(".new")
    new.write_text("".join(entries))
    new.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_made_key_is_let_in_and_stands_nowhere(path: Path) -> None:
    (ann, of_ann), (bob, of_bob) = keys.make("ann"), keys.make("bob")
    found = Keys(written(path, of_ann, of_bob))
    assert re.fullmatch(r"am_[A-Za-z0-9]{43}", ann)
    assert ann != bob
    assert ann not in path.read_text()
    for key, name in ((ann, "ann"), (bob, "bob")):
        entry = found.find(key)
        assert entry is not None
        assert entry.name == name
        assert entry.sha256 not in repr(entry)
    for stranger in ("", "am_", ann[:-1], f"{ann} ", ann.lower(), "\ud800", path.read_text()):
        assert found.find(stranger) is None


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, 'a"\nmax_waiting = 1 #', "é"])
def test_a_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(KeysError, match="letters"):
        keys.make(name)


def test_limits_are_read(path: Path) -> None:
    key, lines = keys.make("ann")
    limits = "max_waiting = 4\nmax_bytes = 5_000\nmax_running = 1\nper_minute = 6\n"
    entry = Keys(written(path, lines, limits)).find(key)
    assert entry is not None
    assert (entry.max_waiting, entry.max_bytes, entry.max_running) == (4, 5000, 1)
    assert entry.per_minute == 6


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[key]]\nname = 1", "key.1.name: "),
        (f'[[key]]\nname = "a"\nsha256 = "{A}"\nmax_runing = 1', "key.1.max_runing: "),
        (f'[[key]]\nname = "a"\nsha256 = "{A}"\nmax_waiting = 0', "key.1.max_waiting: "),
        (f'[[key]]\nname = "a"\nsha256 = "{A}"\nmax_running = {2**63}', "key.1.max_running: "),
        (f'[[key]]\nname = "a"\nsha256 = "{A}"\nper_minute = inf', "key.1.per_minute: "),
        ('[[key]]\nname = "a"\nsha256 = "am_secret"', "key.1.sha256: "),
        (f'[[key]]\nname = "ann"\nsha256 = "{A}"\n' * 2, '[[key]] "ann" is there twice'),
        (
            f'[[key]]\nname="ann"\nsha256="{A}"\n[[key]]\nname="bob"\nsha256="{A}"',
            '[[key]] "bob" has the sha256 of "ann"',
        ),
        ("am_secret", "not TOML"),
        ('[[keys]]\nname = "a"', "keys: "),
    ],
)
def test_a_mistake_is_named_without_a_part_of_a_key(path: Path, text: str, problem: str) -> None:
    with pytest.raises(KeysError) as caught:
        Keys(written(path, text))
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(path: Path) -> None:
    with pytest.raises(KeysError, match=r"cannot read .*keys\.toml: No such file"):
        Keys(path)
    path.write_bytes(b"\xff")
    with pytest.raises(KeysError, match="is no text"):
        Keys(path)


def test_a_change_counts_at_once_and_a_mistake_changes_nothing(path: Path) -> None:
    (ann, of_ann), (bob, of_bob) = keys.make("ann"), keys.make("bob")
    found = Keys(written(path, of_ann))
    assert (bool(found.find(ann)), bool(found.find(bob))) == (True, False)
    written(path, of_bob)
    assert (bool(found.find(ann)), bool(found.find(bob))) == (False, True)
    with capture_logs() as entries:
        written(path, "am_secret")
        assert found.find(bob)
        assert found.find(bob)
        path.unlink()
        assert found.find(bob)
    assert [entry["event"] for entry in entries] == ["keys_not_read", "keys_not_read"]
    assert "secret" not in str(entries)
    written(path)  # nobody has a key any more
    assert not found.find(bob)


def test_a_change_within_one_tick_of_the_clock_is_seen(path: Path) -> None:
    (ann, of_ann), (bob, of_bob) = keys.make("ann"), keys.make("bob")
    found = Keys(written(path, of_ann))
    before = path.stat()
    written(path, of_bob)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (bool(found.find(ann)), bool(found.find(bob))) == (False, True)


def test_a_token_is_for_one_subject_one_key_and_some_minutes(path: Path) -> None:
    clock = Clock(1000.0)
    (_, of_ann), (_, of_bob) = keys.make("ann"), keys.make("bob")
    found = Keys(written(path, of_ann, of_bob), clock)
    token = found.token("ann", TASK)
    # Another frontend with the same file takes it too.
    entry = Keys(path, clock).find_token(token, TASK)
    assert entry is not None
    assert entry.name == "ann"
    name, expiry, signature = token.split(".")
    for forged in (
        "", "ann", "ann..", f"bob.{expiry}.{signature}", f"ann.{int(expiry) + 1}.{signature}",
        f"{name}.{expiry}.", f"{token}x", f"ann.{'9' * 5000}.{signature}", f"ann.²³.{signature}",
        "ann.\ud800.\ud800",
    ):  # fmt: skip
        assert found.find_token(forged, TASK) is None
    assert found.find_token(token, "another") is None
    clock.now += keys.TOKEN_S - 1
    assert found.find_token(token, TASK)
    clock.now += 1
    assert found.find_token(token, TASK) is None
    fresh = found.token("ann", TASK)
    written(path, of_bob)
    assert found.find_token(fresh, TASK) is None
    with pytest.raises(KeysError):
        found.token("ann", TASK)
