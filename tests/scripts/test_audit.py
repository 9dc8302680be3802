"""The audit, without its tools and without a network."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from scripts import audit

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = (f"sha256:{digit * 64}" for digit in "ab")
RECORDED = f"""# a comment
Num_py==1.26.4 ; python_version < '3.13' \\
    --hash={ONE}
idna==3.20
"""


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, text in (("CONSTRAINTS", "num-py==1.26.4\nidna==3.20\n"), ("HASHES", RECORDED)):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(audit, name, path)
    return tmp_path


def test_every_constraint_has_its_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CONSTRAINTS", audit.ROOT / "constraints.txt")
    monkeypatch.setattr(audit, "HASHES", audit.ROOT / "hashes.txt")
    assert len(audit.hashes(audit.HASHES.read_text())) > 100
    assert audit.missing_hashes() == []


def test_a_pin_without_a_hash_and_one_of_another_version_are_found(files: Path) -> None:
    assert audit.missing_hashes() == ["idna 3.20 has no hash in hashes.txt: run `make hashes`"]
    audit.CONSTRAINTS.write_text("num-py==1.26.5\n")
    (found,) = audit.missing_hashes()
    assert found.startswith("num-py 1.26.5 has no hash")


def test_a_file_that_came_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "index_hashes", lambda: RECORDED)
    assert audit.changed_hashes() == []
    later = RECORDED.replace(f"--hash={ONE}", f"--hash={ONE} --hash={OTHER}")
    monkeypatch.setattr(audit, "index_hashes", lambda: later)
    (found,) = audit.changed_hashes()
    assert found.startswith("num-py: the index offers 1 files")


@pytest.mark.parametrize(
    ("asked", "found", "said"),
    [
        ([{"name": "a", "skip_reason": "x"}], [], "did not answer"),
        (None, [], "did not answer"),
        ([{"name": "a", "version": "1", "vulns": []}], [], ""),
        (
            [
                {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]},
                {"name": "b", "skip_reason": "x"},
            ],
            ["a 1: X-1, mended in 2"],
            "1 packages are unknown",
        ),
    ],
)
def test_weaknesses_are_named_and_silence_is_no_all_clear(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: Any,
    found: list[str],
    said: str,
) -> None:
    output = "" if asked is None else json.dumps({"dependencies": asked})
    done = subprocess.CompletedProcess([], 1, output, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert audit.weaknesses() == found
    assert said in capsys.readouterr().out


def test_without_an_index_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(audit, "prepare", fail)
    assert audit.main([]) == 0
    assert "not done, the package index did not answer" in capsys.readouterr().out
    assert audit.main(["hashes"]) == 1
