import pytest

from image_edit.errors import (
    Code,
    DeviceLostError,
    EditError,
    error_of,
    error_of_conditions,
    invalid,
)


def test_the_text_of_an_error_begins_with_its_code() -> None:
    assert str(invalid("WIDTH", "must be 256 to 2048")) == (
        "[INVALID_ARGUMENT] WIDTH: must be 256 to 2048"
    )


@pytest.mark.parametrize(
    "wrapped",
    [
        "[INVALID_ARGUMENT] IMAGE: not a picture\nof any kind",
        "Failed to process the request(s) for model 'edit_conditions', message: "
        "[INVALID_ARGUMENT] IMAGE: not a picture\nof any kind",
    ],
)
def test_code_and_message_of_conditioning_survive_what_triton_wraps_around(wrapped: str) -> None:
    error = error_of_conditions(wrapped)
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message == "IMAGE: not a picture\nof any kind"


def test_a_text_of_tritons_own_goes_to_the_log_and_not_to_the_client() -> None:
    logged: list[str] = []
    error = error_of(error_of_conditions("Stub process is not healthy."), logged.append)
    assert str(error) == "[INTERNAL] the condition images could not be built"
    assert "Stub process is not healthy." in logged[0]


def test_an_unexpected_exception_is_logged_with_its_traceback() -> None:
    logged: list[str] = []
    try:
        raise ZeroDivisionError("secret")
    except ZeroDivisionError as exception:
        error = error_of(exception, logged.append)
    assert error.code is Code.INTERNAL
    assert "secret" not in str(error)
    assert "Traceback" in logged[0]
    assert "secret" in logged[0]


def test_an_error_is_freed_of_the_frames_it_went_through() -> None:
    tensors = "what a frame holds"
    try:
        try:
            raise MemoryError(tensors)
        except MemoryError as cause:
            raise EditError(Code.RESOURCE_EXHAUSTED, "out of memory") from cause
    except EditError as exception:
        error = error_of(exception, lambda _: None)
    assert str(error) == "[RESOURCE_EXHAUSTED] out of memory"
    assert [error.__traceback__, error.__cause__, error.__context__] == [None] * 3


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.UNAVAILABLE, Code.UNIMPLEMENTED])
def test_a_clients_own_mistakes_are_not_logged(code: Code) -> None:
    logged: list[str] = []
    error_of(EditError(code, "x"), logged.append)
    assert logged == []


def test_a_lost_device_stays_one_on_its_way_to_the_client() -> None:
    error = error_of(DeviceLostError(Code.INTERNAL, "the device failed"), lambda _: None)
    assert isinstance(error, DeviceLostError)
    assert str(error) == "[INTERNAL] the device failed"
