"""Owns asking a launched Triton over gRPC whether all its models are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.launcher.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.launcher.repository import Model

_ANSWER_TIMEOUT_S = 5.0
_CHANNEL_OPTIONS = [
    # A proxy of the user must not get requests to the loopback address.
    ("grpc.enable_http_proxy", 0),
    # No port opens before all is loaded; gRPC would wait ever longer between two tries.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
]


class Readiness:
    """A connection to Triton while it loads; use it as a context.

    Args:
        grpc_port: Triton's.
        name: what this Triton calls itself: another server may have taken the port meanwhile.
        models: those that it has to have.
    """

    def __init__(self, grpc_port: int, name: str, models: Sequence[Model]) -> None:
        self._name = name
        self._models = models
        self._channel = grpc.insecure_channel(f"{LOOPBACK}:{grpc_port}", options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection: Triton waits for its clients when it stops."""
        self._channel.close()

    def reached(self) -> bool:
        """Return whether this Triton answers and every model is ready."""
        try:
            server = self._ask("ServerMetadata", service_pb2.ServerMetadataRequest())
            return server.name == self._name and all(
                self._ask("ModelReady", service_pb2.ModelReadyRequest(name=model.name)).ready
                for model in self._models
            )
        except grpc.RpcError:
            return False

    def _ask(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, timeout=_ANSWER_TIMEOUT_S)
