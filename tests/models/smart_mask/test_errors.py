from __future__ import annotations

from smart_mask.errors import Code, MaskError, error_of, invalid, nothing_found


def test_an_error_text_begins_with_its_code() -> None:
    assert str(invalid("BBOX", "is odd")) == "[INVALID_ARGUMENT] BBOX: is odd"
    assert str(nothing_found()) == "[INVALID_ARGUMENT] FastSAM did not generate any masks"


def test_a_coded_error_is_passed_on_and_not_logged() -> None:
    log: list[str] = []
    error = MaskError(Code.NOT_FOUND, "gone")
    assert error_of(error, log.append) is error
    assert not log


def test_any_other_exception_is_logged_and_becomes_internal() -> None:
    log: list[str] = []
    error = error_of(KeyError("detail"), log.append)
    assert error.code is Code.INTERNAL
    assert "detail" not in str(error)
    assert "KeyError: 'detail'" in log[0]
