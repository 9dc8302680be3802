from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from frontend.settings import CHECKOUT, Settings, describe

if TYPE_CHECKING:
    from typing import Any


def test_the_defaults_suit_a_checkout_on_this_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.triton_grpc_urls == ["127.0.0.1:8001"]
    assert settings.model_repository == CHECKOUT / "model_repository"
    assert (settings.model_repository / "image_edit" / "config.pbtxt").exists()
    assert settings.cors_origins == ()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_PORT", "9000")
    monkeypatch.setenv("ARTMANCER_TRITON_URL", "triton:8001")
    monkeypatch.setenv("ARTMANCER_CORS_ORIGINS", '["http://localhost:3000"]')
    monkeypatch.setenv("PORT", "1")
    settings = Settings()
    assert settings.port == 9000
    assert settings.triton_grpc_urls == ["triton:8001"]
    assert settings.cors_origins == ("http://localhost:3000",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 70_000),
        ("max_in_flight", 0),
        ("max_queue_size", 513),
        ("heartbeat_s", 0),
        ("mask_timeout_s", 0),
        ("max_masks_in_flight", 0),
        ("max_masks_waiting", 513),
        ("image_store_bytes", 0),
        ("image_store_ttl_s", float("inf")),
        ("job_timeout_s", float("inf")),
        ("memory_bytes", -1),
        ("log_level", "loud"),
        ("triton_url", ","),
        ("triton_url", "triton"),
        ("triton_url", ":8001"),
        ("triton_url", "triton:grpc"),
        ("triton_url", "triton:65536"),
        ("triton_url", "http://triton:8001"),
        ("triton_url", "triton:8001, triton:8001"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        (" ", ["127.0.0.1:8001"]),
        ("triton:8001", ["triton:8001"]),
        (" a:1, [::1]:8001 ", ["a:1", "[::1]:8001"]),
    ],
)
def test_addresses_of_tritons_are_told_apart(value: str, urls: list[str]) -> None:
    settings = Settings(triton_url=value)
    assert settings.triton_grpc_urls == urls
    assert bool(settings.triton_url) is bool(value.strip())


def test_an_empty_loading_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_LOADING_FILE", "")
    assert Settings().loading_file is None
    monkeypatch.setenv("ARTMANCER_LOADING_FILE", "/run/loading")
    assert str(Settings().loading_file) == "/run/loading"


def test_every_setting_is_described_with_its_type_and_default() -> None:
    described = describe()
    assert [each.name.removeprefix("ARTMANCER_").lower() for each in described] == list(
        Settings.model_fields
    )
    assert all(each.description and each.type for each in described)
    by_name = {each.name: each for each in described}
    expected = {
        "ARTMANCER_PORT": ("integer, at least 1, at most 65535", "8080"),
        "ARTMANCER_LOG_LEVEL": ("debug or info or warning or error", "info"),
        "ARTMANCER_CORS_ORIGINS": ("JSON list", "[]"),
        "ARTMANCER_TRITON_URL": ("text", ""),
        "ARTMANCER_MODEL_REPOSITORY": ("path", "model_repository"),
        "ARTMANCER_LOADING_FILE": ("path", ""),
        "ARTMANCER_PING_TIMEOUT_S": ("number, above 0", "1.5"),
        "ARTMANCER_JOB_TIMEOUT_S": ("number, above 0", "1800"),
        "ARTMANCER_MEMORY_BYTES": ("integer, at least 1", "1073741824"),
    }
    for name, (kind, default) in expected.items():
        assert (by_name[name].type, by_name[name].default) == (kind, default)


def test_a_described_default_is_what_the_variable_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    for each in describe():
        monkeypatch.setenv(each.name, each.default)
    settings = Settings()
    relative = {"model_repository": CHECKOUT / settings.model_repository}
    assert settings.model_copy(update=relative) == Settings.model_construct()
