from __future__ import annotations

import grpc
import pytest
from grpc.aio import Metadata

from frontend import errors
from frontend.triton import model_errors


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("INVALID_ARGUMENT", errors.InvalidInputError, 400),
        ("UNIMPLEMENTED", errors.UnsupportedError, 501),
        ("UNAVAILABLE", errors.UnavailableError, 503),
        ("CANCELLED", errors.ModelCancelledError, 500),
        ("NOT_FOUND", errors.NotCachedError, 500),
        ("RESOURCE_EXHAUSTED", errors.BackendError, 500),
        ("INTERNAL", errors.BackendError, 500),
    ],
)
def test_the_models_codes(code: str, kind: type[errors.ServingError], status: int) -> None:
    error = model_errors.from_model(f"[{code}] prompt: what\nis wrong")
    assert type(error) is kind
    assert error.detail == "prompt: what\nis wrong"
    assert error.job_error == f"{status}: prompt: what\nis wrong"


def test_a_models_error_is_found_in_what_triton_says_around_it() -> None:
    message = "in ensemble 'e': Failed, message: [NOT_FOUND] IMAGE_ID: gone\n\nAt:\n  /secret.py(1)"
    error = model_errors.from_model(message)
    assert isinstance(error, errors.NotCachedError)
    assert error.detail == "IMAGE_ID: gone"


@pytest.mark.parametrize("message", ["[NEVER_HEARD_OF] no", "no code", "", "[INTERNAL]"])
def test_a_text_without_a_code_is_tritons(message: str) -> None:
    assert model_errors.coded(message) is None
    assert type(model_errors.from_model(message)) is errors.BackendError


def test_tritons_own_errors_lose_their_traceback() -> None:
    message = "Failed to process the request(s), message: ValueError\n\nAt:\n  /secret/model.py(1)"
    error = model_errors.from_model(message)
    assert isinstance(error, errors.BackendError)
    assert error.detail.endswith("ValueError")
    assert "secret" not in error.detail


def test_a_long_foreign_message_is_cut() -> None:
    assert len(model_errors.from_model("x" * 10_000).detail) < 500


def test_being_away_is_not_the_models_queue_being_full() -> None:
    assert not isinstance(model_errors.from_model("[UNAVAILABLE] full"), errors.TritonDownError)
    # The texts of image_edit and smart_mask for what they do not finish, because they end.
    unloading = model_errors.from_model("[UNAVAILABLE] the model is being unloaded")
    assert isinstance(unloading, errors.TritonStoppingError)


FULL = [
    "Failed to increase the shared memory pool size for key 'artmancer-7-1' to 4096 bytes. "
    "Please increase the shared memory size or reduce: No space left on device",
    "error: Failed to increase the shared memory pool size for key 'artmancer-7-1'",
]


@pytest.mark.parametrize("text", FULL)
def test_a_full_shared_memory_is_said_without_the_name_of_a_region(text: str) -> None:
    error = model_errors.from_model(text)
    assert type(error) is errors.SharedMemoryFullError
    assert error.detail.startswith("Triton's shared memory, /dev/shm, is full: ")
    assert "artmancer-7-1" not in error.detail
    status = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), text)
    assert type(model_errors.status_error(status)) is errors.SharedMemoryFullError


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        # From a server that ends its calls before its process, and from proxies.
        (grpc.StatusCode.CANCELLED, ""),
        (grpc.StatusCode.CANCELLED, "RPC cancelled"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
    ],
)
def test_a_call_that_was_broken_off_says_that_triton_is_down(
    code: grpc.StatusCode, details: str
) -> None:
    status = grpc.aio.AioRpcError(code, Metadata(), Metadata(), details)
    error = model_errors.status_error(status)
    assert type(error) is errors.TritonDownError
    assert error.detail == "Triton is not available"


def test_another_status_is_a_fault_of_triton() -> None:
    status = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "a path")
    error = model_errors.status_error(status)
    assert type(error) is errors.BackendError
    assert error.detail == "Triton failed with INTERNAL"
