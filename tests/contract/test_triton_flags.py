"""The launcher and the container's entry point start tritonserver alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import triton_entrypoint
from frontend.launcher import tritonserver
from frontend.settings import Settings
from model_kit import internal

REPOSITORY = Path(__file__).parents[2] / "model_repository"
# The launcher's tritonserver comes from a wheel, and nothing but the launcher reaches it.
LAUNCHER_ALONE = {
    "--backend-directory",
    "--cache-directory",
    "--grpc-address",
    "--grpc-port",
    "--metrics-port",
}
# A container's metrics are for its network, a launched Triton's for this machine.
DIFFERENT = {"--metrics-address", "--grpc-restricted-protocol"}


def flags(command: list[str]) -> dict[str, str]:
    found = dict(flag.partition("=")[::2] for flag in command[1:])
    assert len(found) == len(command) - 1
    return found


def test_both_start_tritonserver_with_the_same_flags() -> None:
    settings = Settings(
        model_repository=REPOSITORY,
        model_config_name="cpu",
        triton_http_port=1234,
        triton_metrics_port=1235,
        triton_stop_timeout_s=56,
    )
    launched = flags(tritonserver._command(settings))
    options, _ = triton_entrypoint.parse(
        [
            f"--model-repository={REPOSITORY}",
            *("--profile=cpu", "--http-port=1234", "--exit-timeout-secs=56"),
        ]
    )
    contained = flags(triton_entrypoint.command(options))
    assert launched.keys() - contained.keys() == LAUNCHER_ALONE
    assert contained.keys() - launched.keys() == set()
    unequal = {name for name in contained if contained[name] != launched[name]}
    assert unequal == DIFFERENT


def test_both_restrict_the_same_by_a_key_of_their_own() -> None:
    keys = set()
    for _ in range(2):
        for command in (
            tritonserver._command(Settings(model_repository=REPOSITORY)),
            triton_entrypoint.command(triton_entrypoint.parse([])[0]),
        ):
            restriction = flags(command)["--grpc-restricted-protocol"]
            protocols, _, key = restriction.partition(":artmancer=")
            assert protocols == tritonserver.RESTRICTED == triton_entrypoint.RESTRICTED
            assert len(key) >= 32
            keys.add(key)
    assert len(keys) == 4
    assert tritonserver.INTERNAL_KEY == triton_entrypoint.INTERNAL_KEY == internal.KEY_VARIABLE


def test_both_wait_as_long_for_a_stubs_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits() -> tuple[float, float]:
        options, _ = triton_entrypoint.parse([])
        return Settings().stub_silence_timeout_s, options.stub_silence_timeout_secs

    monkeypatch.delenv(triton_entrypoint.SILENCE_TIMEOUT, raising=False)
    assert waits() == (60, 60)
    monkeypatch.setenv(triton_entrypoint.SILENCE_TIMEOUT, "5.5")
    assert waits() == (5.5, 5.5)
    for refused in ("4.9", "nan", "inf", "soon"):
        monkeypatch.setenv(triton_entrypoint.SILENCE_TIMEOUT, refused)
        with pytest.raises(ValidationError):
            Settings()
        with pytest.raises(SystemExit):
            triton_entrypoint.parse([])


def test_a_launched_triton_opens_what_it_is_asked_to_open() -> None:
    closed = flags(tritonserver._command(Settings(model_repository=REPOSITORY)))
    assert (closed["--allow-http"], closed["--allow-metrics"]) == ("false", "false")
    assert not {"--http-port", "--metrics-port"} & closed.keys()
    opened = Settings(model_repository=REPOSITORY, triton_unrestricted=True, triton_http_port=1234)
    command = flags(tritonserver._command(opened))
    assert command["--http-address"] == "127.0.0.1"
    assert "--grpc-restricted-protocol" not in command
