"""API keys as users of the command line meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.keys import Keys
from tests.frontend.scripted_server import Script, event, serving

from .command import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    RunEdit = Callable[[Script, str], subprocess.CompletedProcess[str]]

KEY = "am_" + "k" * 43


def test_a_new_key_is_shown_apart_from_what_the_file_gets(tmp_path: Path) -> None:
    made = [run("key", "new", name) for name in ("ann", "bob")]
    assert [done.returncode for done in made] == [0, 0]
    path = tmp_path / "keys.toml"
    path.write_text("".join(done.stdout for done in made))
    for done, name in zip(made, ("ann", "bob"), strict=True):
        said, key = done.stderr.strip().rsplit(" ", 1)
        assert said == f"The key of {name}, which is shown this once:"
        assert key not in done.stdout
        found = Keys(path).find(key)
        assert found is not None
        assert found.name == name


def test_a_key_that_nobody_sees_is_a_failure() -> None:
    assert run("key", "new", "ann", lost="full", lost_stream=2).returncode == 1


def test_a_name_that_no_key_can_have() -> None:
    done = run("key", "new", "two words")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "artmancer: a name has 1 to 64 letters, digits, - and _\n"


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: Path) -> RunEdit:
    """Provide what runs an edit with a key in the environment."""

    def run_edit(script: Script, key: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("ARTMANCER_API_KEY", key)
        words = ("edit", "--image", image, "--mask", image, "--out", tmp_path / "out.png")
        with serving(script) as url:
            return run(*words, url=url)

    return run_edit


def test_every_request_of_a_command_has_the_key(with_key: RunEdit) -> None:
    script = Script([event("queued"), event("done", 2)])
    with_key(script, f" {KEY}\n")
    assert script.authorizations == [f"Bearer {KEY}"] * 3  # submission, stream, result


def test_a_key_that_no_header_can_carry_is_not_repeated(with_key: RunEdit) -> None:
    done = with_key(Script(), "a\nb")
    assert done.returncode == 2
    assert done.stderr == "artmancer: the API key has characters that no key has\n"


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [(401, 2, " (the commands take it from ARTMANCER_API_KEY)"), (429, 1, "")],
    ids=["a wrong key", "too much in work"],
)
def test_a_refusal_says_whose_fault_it_is(
    with_key: RunEdit, status: int, code: int, hint: str
) -> None:
    done = with_key(Script(refusal=(status, b'{"detail": "so it is"}')), KEY)
    assert done.returncode == code
    assert done.stderr == f"artmancer: so it is{hint}\n"
