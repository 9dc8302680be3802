from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from frontend.errors import own_words
from frontend.settings import CHECKOUT, Settings, example, unknown

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


@pytest.mark.parametrize("field", ["allowed_hosts", "cors_origins", "trusted_proxies"])
@pytest.mark.parametrize("text", ["foo", "", '"foo"', "[1]", "{}", "null", '["a"', "10.0.0.0/8"])
def test_a_list_that_is_none_is_shown_one(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = example(field)
    assert shown is not None
    monkeypatch.setenv(f"ARTMANCER_{field.upper()}", text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    [problem] = caught.value.errors()
    assert problem["loc"] == (field,)
    assert own_words(problem["msg"]) == f"must be a JSON list such as {shown}"
    monkeypatch.setenv(f"ARTMANCER_{field.upper()}", shown)
    assert getattr(Settings(), field) == tuple(json.loads(shown))


def test_every_list_has_an_example() -> None:
    lists = [name for name, field in Settings.model_fields.items() if type(field.default) is tuple]
    assert len(lists) == 3
    assert all(map(example, lists))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 70_000),
        ("max_in_flight", 0),
        ("max_queue_size", 513),
        ("stream_ping_s", 0),
        ("mask_timeout_s", 0),
        ("max_masks_in_flight", 0),
        ("max_masks_waiting", 513),
        ("image_store_bytes", 0),
        ("image_store_ttl_s", float("inf")),
        ("job_timeout_s", float("inf")),
        ("store_bytes", -1),
        ("log_level", "loud"),
        ("owner_fraction", 0),
        ("owner_fraction", 1.5),
        ("roles", ""),
        ("roles", "serve,cook"),
        ("drain_s", -1),
        ("drain_s", float("inf")),
        ("triton_url", ","),
        ("triton_url", "triton"),
        ("triton_url", ":8001"),
        ("triton_url", "triton:grpc"),
        ("triton_url", "triton:65536"),
        ("triton_url", "fd00::5"),
        ("triton_url", "1:2:3"),
        ("triton_url", "unix:x:1"),
        ("triton_url", "h:8001?x:1"),
        ("triton_url", "user@h:8001"),
        ("triton_url", "a b:1"),
        ("triton_url", "[]:1"),
        ("triton_url", "http://triton:8001"),
        ("triton_url", "triton:8001, triton:8001"),
        ("triton_url", "::1:8001, [::1]:8001"),
        ("advertised_url", ","),
        ("advertised_url", "10.0.0.2"),
        ("advertised_url", "10.0.0.2:0"),
        ("advertised_url", "http://10.0.0.2:8001"),
        ("advertised_url", "10.0.0.2:8001,10.0.0.3:8001"),  # there is one, the launched one
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
        ("fd00::2:8001", ["[fd00::2]:8001"]),
    ],
)
def test_addresses_of_tritons_are_separated(value: str, urls: list[str]) -> None:
    settings = Settings(triton_url=value)
    assert settings.triton_grpc_urls == urls
    assert bool(settings.triton_url) is bool(value.strip())


@pytest.mark.parametrize(
    ("value", "advertised"),
    [
        ("", ["a:8001", "b:8001"]),
        (" ", ["a:8001", "b:8001"]),
        ("10.0.0.2:1, fd00::2:8001", ["10.0.0.2:1", "[fd00::2]:8001"]),
    ],
)
def test_others_may_reach_tritons_elsewhere(value: str, advertised: list[str]) -> None:
    settings = Settings(triton_url="a:8001,b:8001", advertised_url=value, roles="dispatch")
    assert settings.triton_grpc_urls == ["a:8001", "b:8001"]
    assert settings.advertised_grpc_urls == advertised


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"triton_url": "a:1,b:1", "advertised_url": "c:1"},
            r"^advertised_url\n.* must name as many Tritons as ARTMANCER_TRITON_URL",
        ),
        (
            {"triton_url": "a:1,b:1", "advertised_url": "c:1,c:1"},
            r"^advertised_url\n.* names a Triton twice",
        ),
        (
            {"roles": "serve", "advertised_url": "c:1"},
            r"^roles\n.* announces no Triton: give ARTMANCER_ADVERTISED_URL to the dispatchers",
        ),
    ],
)
def test_what_is_advertised_in_vain_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=f"(?m){sentence}") as refused:
        Settings(**values)
    assert refused.value.error_count() == 1


@pytest.mark.parametrize(
    ("roles", "triton_url", "launches", "urls"),
    [
        ("serve", "", False, []),
        ("serve", "a:1", False, ["a:1"]),
        ("dispatch", "", True, ["127.0.0.1:8001"]),
        ("dispatch", "a:1", False, ["a:1"]),
        ("serve,dispatch", "", True, ["127.0.0.1:8001"]),
    ],
)
def test_who_only_serves_launches_no_triton(
    roles: str, triton_url: str, urls: list[str], *, launches: bool
) -> None:
    settings = Settings(roles=roles, triton_url=triton_url)
    assert settings.launches_triton is launches
    assert settings.triton_grpc_urls == settings.advertised_grpc_urls == urls


@pytest.mark.parametrize(
    ("host", "published_at", "reached"),
    [
        ("127.0.0.1", "", False), ("::1", "", False), ("localhost", "", False),
        ("127.9.9.9", "", False), ("0.0.0.0", "", True), ("::", "", True), ("", "", True),
        ("192.0.2.1", "", True), ("my-machine", "", True), ("0.0.0.0", "127.0.0.1", False),
        ("0.0.0.0", " 127.0.0.1 , ::1", False), ("0.0.0.0", "127.0.0.1,0.0.0.0", True),
        ("0.0.0.0", " ", True), ("127.0.0.1", "192.0.2.1", True), ("[::1]", "", False),
        ("[::]", "", True), ("::", "[::1]", False),
    ],
)  # fmt: skip
def test_who_reaches_the_server(host: str, published_at: str, *, reached: bool) -> None:
    assert Settings(host=host, published_at=published_at).reached_from_outside is reached


def test_an_empty_loading_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_LOADING_FILE", "")
    assert Settings().loading_file is None
    monkeypatch.setenv("ARTMANCER_LOADING_FILE", "/run/loading")
    assert str(Settings().loading_file) == "/run/loading"


@pytest.mark.parametrize("field", ["state_folder", "keys_file", "loading_file", "model_repository"])
def test_a_path_may_begin_at_a_home_that_exists_only(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ARTMANCER_{field.upper()}", "~nobody-has-this-name/x")
    with pytest.raises(ValidationError, match="no home is known for ~nobody-has-this-name"):
        Settings()


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    settings = Settings(keys_file=Path("~/keys"), state_folder=Path("~/state"))
    assert (str(settings.keys_file), str(settings.state_folder)) == (
        "/home/you/keys",
        "/home/you/state",
    )


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_misspelt_variable_is_found_with_the_one_that_was_meant() -> None:
    known = [f"ARTMANCER_{field.upper()}" for field in Settings.model_fields]
    assert unknown([*known, "artmancer_port", "ARTMANCER_URL", "ARTMANCER_TAG", "PORT"]) == {}
    assert unknown(["ARTMANCER_MAX_QUEUE", "ARTMANCER_RESULT_TTL", "ARTMANCER_XYZ", "PATH"]) == {
        "ARTMANCER_MAX_QUEUE": "ARTMANCER_MAX_QUEUE_SIZE",
        "ARTMANCER_RESULT_TTL": "ARTMANCER_RESULT_TTL_S",
        "ARTMANCER_XYZ": None,
    }


@pytest.mark.parametrize(
    ("roles", "serves", "dispatches"),
    [
        ("serve,dispatch", True, True),
        ("dispatch, serve", True, True),
        ("serve", True, False),
        (" dispatch ", False, True),
    ],
)
def test_a_process_has_one_role_or_both(roles: str, *, serves: bool, dispatches: bool) -> None:
    settings = Settings(triton_url="t:8001", roles=roles)
    assert (settings.serves, settings.dispatches) == (serves, dispatches)
