import gc
import weakref

import pytest

from model_kit.errors import Code, CodedError, error_of, invalid

FAILED = "it failed; the log says why"


def test_the_text_of_an_error_begins_with_its_code() -> None:
    assert str(invalid("WIDTH", "must be 256 to 2048")) == (
        "[INVALID_ARGUMENT] WIDTH: must be 256 to 2048"
    )


def test_an_unexpected_exception_is_logged_with_its_traceback() -> None:
    logged: list[str] = []
    try:
        raise ZeroDivisionError("secret")
    except ZeroDivisionError as exception:
        error = error_of(exception, logged.append, FAILED)
    assert str(error) == f"[INTERNAL] {FAILED}"
    assert "Traceback" in logged[0]
    assert "ZeroDivisionError: secret" in logged[0]


class Arrays:
    """What a frame of a request holds."""


def test_an_error_is_freed_of_the_frames_it_went_through() -> None:
    def fail() -> weakref.ref[Arrays]:
        arrays = Arrays()
        held.append(weakref.ref(arrays))
        try:
            raise MemoryError(arrays)
        except MemoryError as cause:
            raise CodedError(Code.RESOURCE_EXHAUSTED, "out of memory") from cause

    held: list[weakref.ref[Arrays]] = []
    try:
        fail()
    except CodedError as exception:
        error = error_of(exception, lambda _: None, FAILED)
    assert str(error) == "[RESOURCE_EXHAUSTED] out of memory"
    assert [error.__traceback__, error.__cause__, error.__context__] == [None] * 3
    gc.collect()
    assert held[0]() is None


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.RESOURCE_EXHAUSTED])
def test_a_fault_of_the_server_is_logged(code: Code) -> None:
    logged: list[str] = []
    error_of(CodedError(code, "x"), logged.append, FAILED)
    assert f"[{code}] x" in logged[0]


@pytest.mark.parametrize(
    "code",
    [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAVAILABLE, Code.UNIMPLEMENTED, Code.CANCELLED],
)
def test_a_coded_error_keeps_its_text_and_is_not_logged(code: Code) -> None:
    logged: list[str] = []
    error = error_of(CodedError(code, "x"), logged.append, FAILED)
    assert (error.code, str(error)) == (code, f"[{code}] x")
    assert logged == []


class OwnError(CodedError):
    """A class that says more than its code."""


def test_an_error_keeps_its_class() -> None:
    error = error_of(OwnError(Code.INTERNAL, "x"), lambda _: None, FAILED)
    assert isinstance(error, OwnError)


def test_every_code_has_a_number_of_tritons() -> None:
    # The attributes of pb_utils.TritonError in Triton 2.51.
    known = (
        "UNKNOWN INTERNAL NOT_FOUND INVALID_ARG UNAVAILABLE UNSUPPORTED ALREADY_EXISTS CANCELLED"
    )
    assert {code.triton_name for code in Code} <= set(known.split())
    assert Code.UNIMPLEMENTED.triton_name == "UNSUPPORTED"
    assert Code.RESOURCE_EXHAUSTED.triton_name == "INTERNAL"


def test_a_full_shared_memory_has_words_of_its_own_and_is_logged() -> None:
    logged: list[str] = []
    text = "Failed to increase the shared memory pool size for key 'artmancer-7-1'"
    error = error_of(RuntimeError(text), logged.append, FAILED)
    assert str(error) == "[UNAVAILABLE] Triton's shared memory, /dev/shm, is full"
    assert text in logged[0]
