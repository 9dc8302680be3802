import pytest

from image_edit.errors import DeviceLostError, error_of, error_of_conditions, unloading
from model_kit.errors import Code


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


@pytest.mark.parametrize(
    "text",
    [
        "Failed for execute the inference request. Model 'edit_conditions' is not ready.",
        "Request for unknown model: 'edit_conditions' has no available versions",
        "Server is stopping, has stopped accepting new inference requests",
    ],
)
def test_an_edit_whose_conditions_nobody_builds_any_more_may_begin_anew(text: str) -> None:
    assert str(error_of_conditions(text)) == str(unloading())
    assert unloading().code is Code.UNAVAILABLE


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


def test_a_lost_device_stays_one_on_its_way_to_the_client() -> None:
    error = error_of(DeviceLostError(Code.INTERNAL, "the device failed"), lambda _: None)
    assert isinstance(error, DeviceLostError)
    assert str(error) == "[INTERNAL] the device failed"


def test_conditions_that_do_not_fit_into_shared_memory_are_unavailable() -> None:
    error = error_of_conditions("ftruncate: No space left on device")
    assert str(error) == "[UNAVAILABLE] Triton's shared memory, /dev/shm, is full"
