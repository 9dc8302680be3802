from __future__ import annotations

import json

import pytest

from model_kit import internal
from model_kit.errors import CodedError


class Request:
    def __init__(self, **parameters: object) -> None:
        self._parameters = parameters

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters else ""


def test_models_of_one_launch_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(internal.KEY_VARIABLE, "the key")
    internal.refuse_clients(Request(**internal.parameters()))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"artmancer_internal_key": ""},
        {"artmancer_internal_key": "the keys"},
        {"artmancer_internal_key": 7},
        {"artmancer_internal_key": None},
        {"artmancer_internal_key": "клю"},
        {"key": "the key"},
    ],
)
def test_clients_are_refused(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, object]
) -> None:
    monkeypatch.setenv(internal.KEY_VARIABLE, "the key")
    with pytest.raises(
        CodedError, match=r"^\[UNIMPLEMENTED\] this model is called by other models"
    ):
        internal.refuse_clients(Request(**parameters))


def test_without_a_key_anybody_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(internal.KEY_VARIABLE, raising=False)
    assert internal.parameters() == {}
    internal.refuse_clients(Request())
