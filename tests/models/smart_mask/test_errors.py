from __future__ import annotations

from model_kit.errors import Code
from smart_mask.errors import error_of, nothing_found


def test_the_web_client_finds_the_words_that_it_knows() -> None:
    assert (
        str(nothing_found("it is empty"))
        == "[INVALID_ARGUMENT] FastSAM did not generate any masks: it is empty"
    )


def test_any_other_exception_is_logged_and_becomes_internal() -> None:
    log: list[str] = []
    error = error_of(KeyError("detail"), log.append)
    assert error.code is Code.INTERNAL
    assert "detail" not in str(error)
    assert "KeyError: 'detail'" in log[0]
