from __future__ import annotations

import contextlib
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.streams import Lossy, lose_output

if TYPE_CHECKING:
    import pytest


class Failing:
    """A file that fails in another way each time."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def write(self, _text: str) -> None:
        raise self._errors.pop(0)

    flush = write


def test_the_first_loss_is_remembered() -> None:
    file = Failing(ValueError("closed"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "gone"))
    stream = Lossy(file)  # type: ignore[arg-type]
    assert stream.write("abc") == 3
    assert stream.error is None
    for _ in range(2):
        stream.write("abc")
        assert stream.error is not None
        assert stream.error.errno == errno.ENOSPC


def test_what_is_put_off_is_lost_when_it_is_written() -> None:
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as file:  # it closes in vain
        stream = Lossy(file)
        stream.write("abc")
        assert stream.error is None
        stream.flush()
        assert stream.error is not None


def test_streams_that_a_shell_has_closed_take_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    lose_output()
    for stream in (sys.stdout, sys.stderr):
        stream.write("abc")
        stream.flush()
        assert isinstance(stream, Lossy)
        assert stream.error is None
        stream._file.close()
