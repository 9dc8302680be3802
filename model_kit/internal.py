"""Owns telling another model's request from a client's.

Triton lets every client call every model. Some are only for other models, which bound what they
ask for. Whoever starts Triton gives its models a key, and they send it to each other.
"""

import hmac
import json
import os
from typing import Protocol

from model_kit.errors import Code, CodedError

KEY_VARIABLE = "ARTMANCER_INTERNAL_KEY"
"""Environment variable with the key; without one, anybody may call."""
_PARAMETER = "artmancer_internal_key"


class Request(Protocol):
    """What is needed of pb_utils.InferenceRequest."""

    def parameters(self) -> str:
        """Return the request's parameters as JSON."""


def parameters() -> dict[str, str]:
    """Return the parameters of a request to another model."""
    key = os.environ.get(KEY_VARIABLE)
    return {_PARAMETER: key} if key else {}


def refuse_clients(request: Request) -> None:
    """Let a request pass only if a model of the same Triton sent it.

    Raises:
        CodedError: UNIMPLEMENTED: a client sent it.
    """
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return
    sent = str(json.loads(request.parameters() or "{}").get(_PARAMETER, ""))
    if not hmac.compare_digest(sent.encode(), key.encode()):
        raise CodedError(
            Code.UNIMPLEMENTED, "this model is called by other models only, not by clients"
        )
