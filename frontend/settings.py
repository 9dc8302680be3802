"""Owns every setting of the frontend: names, defaults, bounds and descriptions."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from frontend.homes import expanded
from frontend.loopback import is_loopback
from model_kit import heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterable

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
# Read by `Settings` itself, because the error of pydantic-settings names no variable.
Texts = Annotated[tuple[str, ...], NoDecode]

CHECKOUT = Path(__file__).parents[1]
PREFIX = "ARTMANCER_"
SERVE, DISPATCH = "serve", "dispatch"
_HOST = re.compile(r"[A-Za-z0-9._-]+")
# Read by the command line, and by docker-compose.yml.
OTHER_VARIABLES = {
    *("ARTMANCER_URL", "ARTMANCER_API_KEY", "ARTMANCER_BIND", "ARTMANCER_TAG"),
    *("ARTMANCER_PROXY_BIND", "ARTMANCER_PROXY_PORT"),
}


class Settings(BaseSettings):
    """Read once, at start, from environment variables named `ARTMANCER_<FIELD>`.

    Raises:
        pydantic.ValidationError: a variable is out of its range.
    """

    # Without inputs, because that of store_url may hold a password.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="address on which the frontend listens")
    port: Port = Field(default=8080, description="port on which the frontend listens")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least important entries that the log holds"
    )
    allowed_hosts: Texts = Field(
        default=(),
        examples=[["gpu1.example"]],
        description="names under which the frontend may be reached, besides addresses, the "
        'loopback names and this machine\'s; ["*"] allows any',
    )
    cors_origins: Texts = Field(
        default=(),
        examples=[["https://app.example"]],
        description='other origins whose pages may call the API; ["*"] allows any',
    )

    keys_file: Path | None = Field(
        default=None,
        description="TOML file of API keys, read again when it changes; empty: nobody needs one",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="whether requests without a key are served where other machines can send "
        "them, or where there is a keys file",
    )
    published_at: str = Field(
        default="",
        description="addresses at which others reach this server, with commas between, where that "
        "is not ARTMANCER_HOST: those at which a container's port is published",
    )
    owner_fraction: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="fraction of each of the server's bounds that one owner (a key, or an address "
        "without one) may take: waiting jobs and their bytes, uploads, event streams, mask "
        "requests, pictures",
    )
    trusted_proxies: Texts = Field(
        default=("127.0.0.0/8", "::1"),
        examples=[["10.0.0.0/8"]],
        description="addresses or networks of proxies: who they say a request is from is "
        "believed, and no bound for one address counts for them",
    )
    max_connections: int = Field(
        default=1024,
        ge=16,
        le=65536,
        description="maximum number of open connections; half of them may be event streams",
    )
    max_connections_per_address: int = Field(
        default=256,
        ge=1,
        description="maximum number of open connections of one address, or of one /64 of IPv6",
    )
    head_timeout_s: Seconds = Field(
        default=10.0, description="seconds that the head of a request may take to come"
    )
    write_timeout_s: Seconds = Field(
        default=30.0, description="seconds that a client may take to read the next 64 KiB"
    )

    triton_url: str = Field(
        default="",
        description="host:port of an external Triton's gRPC, or of several with the same models, "
        "with commas between; empty: the frontend launches a Triton of its own; one that only "
        "serves launches none, and sends mask requests to the Tritons that dispatchers announce",
    )
    advertised_url: str = Field(
        default="",
        description="host:port at which others reach each of these Tritons, in the same order, "
        "which a dispatcher announces; empty: those of ARTMANCER_TRITON_URL",
    )
    triton_http_port: Port | None = Field(
        default=None, description="HTTP port of the launched Triton; empty: it opens none"
    )
    triton_grpc_port: Port = Field(default=8001, description="gRPC port of the launched Triton")
    triton_metrics_port: Port | None = Field(
        default=None, description="metrics port of the launched Triton; empty: it opens none"
    )
    triton_unrestricted: bool = Field(
        default=False,
        description="whether whoever reaches the launched Triton may also use shared memory, "
        "change its logs and traces, and call the models inside; some runs of perf_analyzer need "
        "it",
    )
    model_repository: Path = Field(
        default=CHECKOUT / "model_repository",
        description="model repository of the launched Triton",
    )
    model_config_name: str = Field(
        default="cpu",
        description="profile of the launched Triton: the name of a file in the models' configs/; "
        "empty: config.pbtxt",
    )
    loading_file: Path | None = Field(
        default=None,
        description="file in which Triton writes what it is loading (give Triton the same "
        "variable), or a folder with such a file for each Triton; empty: none for an external "
        "Triton, one of its own for a launched one",
    )
    triton_start_timeout_s: Seconds = Field(
        default=180.0, description="seconds that the launched Triton may take to load its models"
    )
    triton_stop_timeout_s: Seconds = Field(
        default=10.0,
        description="seconds that the launched Triton may take to stop before it is killed",
    )
    stub_silence_timeout_s: Seconds = Field(
        default=heartbeat.TIMEOUT_S,
        ge=heartbeat.MIN_TIMEOUT_S,
        description="seconds without a sign of life of a model's process after which Triton is "
        "killed and started again (in containers give it to Triton)",
    )
    triton_restart_limit: int = Field(
        default=5, ge=0, description="restarts of the launched Triton in a row before giving up"
    )

    ping_interval_s: Seconds = Field(default=1.0, description="seconds between two pings of Triton")
    ping_timeout_s: Seconds = Field(
        default=1.5,
        description="seconds until a ping counts as missed; after two in a row Triton is down",
    )
    recovery_timeout_s: Seconds = Field(
        default=300.0,
        description="seconds of an outage after which the waiting jobs end with an error",
    )
    silence_timeout_s: Seconds = Field(
        default=120.0,
        description="seconds without a sign of life after which the job on the engine fails",
    )
    job_timeout_s: Seconds = Field(
        default=1800.0, description="seconds that the engine may work on a job"
    )
    cancel_timeout_s: Seconds = Field(
        default=2.0, description="seconds that a model may take to answer a cancel"
    )
    cancel_grace_s: Seconds = Field(
        default=10.0,
        description="seconds that a cancelled job may take to end before its stream is cut",
    )

    max_queue_size: int = Field(
        default=128, ge=1, le=512, description="maximum number of jobs that wait to start"
    )
    max_in_flight: int = Field(
        default=2, ge=1, le=64, description="maximum number of jobs that one Triton has at once"
    )
    result_ttl_s: Seconds = Field(default=3600.0, description="seconds that a finished job is kept")
    roles: str = Field(
        default="serve,dispatch",
        description="what this process does: `serve` answers clients, `dispatch` gives jobs to the "
        "Tritons; with a comma between: both. All processes need the same jobs: one state folder "
        "on one machine, or one ARTMANCER_STORE_URL",
    )
    drain_s: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="seconds that the running jobs may take to end when the server stops; those "
        "that have not ended begin anew at the next start",
    )
    state_folder: Path | None = Field(
        default=None,
        description="folder of what outlives the frontend: its jobs, in one file of SQLite; on a "
        "disk of this machine; empty: artmancer in $XDG_STATE_HOME, or else in ~/.local/state",
    )
    store_url: str = Field(
        default="",
        repr=False,  # it may hold a password
        description="postgresql://user:password@host:port/database of the PostgreSQL that holds "
        "the jobs of all frontends; empty: a file of SQLite in the state folder",
    )
    store_bytes: Bytes = Field(
        default=2**33,
        description="maximum bytes of all jobs' images and events, on the disk; unfinished jobs "
        "may take half, and hold their images as pixels, 3 to 4 bytes each",
    )
    stream_ping_s: Seconds = Field(
        default=5.0,
        description="seconds between two comments that keep an idle event stream open",
    )

    mask_timeout_s: Seconds = Field(
        default=30.0, description="seconds that a mask request may be with Triton"
    )
    max_masks_in_flight: int = Field(
        default=16,
        ge=1,
        le=64,
        description="maximum number of mask requests that one Triton has at once",
    )
    max_masks_waiting: int = Field(
        default=128, ge=1, le=512, description="maximum number of mask requests that wait to start"
    )
    image_store_bytes: Bytes = Field(
        default=256 * 2**20,
        description="maximum bytes of the pictures kept for mask requests by image_id: in the "
        "store, and once more in the memory of each frontend",
    )
    image_store_ttl_s: Seconds = Field(
        default=3600.0,
        description="seconds that such a picture is kept after its last use, and at most a "
        "tenth longer",
    )

    max_body_bytes: Bytes = Field(default=64 * 2**20, description="maximum bytes of a request body")
    max_pending_body_bytes: Bytes = Field(
        default=256 * 2**20, description="maximum bytes of all bodies that are handled at one time"
    )
    max_pending_answer_bytes: Bytes = Field(
        default=256 * 2**20,
        description="maximum bytes of all large answers that are being read, without results of "
        "edits, which lie on the disk",
    )
    max_image_pixels: Bytes = Field(
        default=2**25,
        description="maximum pixels, width x height, of each of an edit's images; to allow larger "
        "ones, raise MAX_IMAGE_PIXELS of edit_conditions too",
    )
    max_mask_pixels: Bytes = Field(
        default=2**26,
        description="maximum pixels of each picture of a mask request and of extract-object; to "
        "allow larger ones, raise MAX_IMAGE_PIXELS of smart_mask too",
    )
    max_conditional_images: int = Field(
        default=4, ge=1, le=4, description="maximum number of conditional_images of an edit"
    )
    image_workers: int = Field(
        default=2,
        ge=1,
        description="processes that decode the pictures of edits at the same time, and as many for "
        "those of mask requests; each takes one picture and ends",
    )

    @field_validator(
        *("loading_file", "keys_file", "state_folder", "triton_http_port", "triton_metrics_port"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("allowed_hosts", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _read_list(cls, value: object, info: ValidationInfo) -> object:
        """Read the JSON that a variable holds."""
        if not isinstance(value, str):
            return value
        try:
            texts = json.loads(value)
        except ValueError:
            texts = None
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            assert info.field_name is not None
            raise ValueError(f"must be a JSON list such as {example(info.field_name)}")
        return texts

    @field_validator("model_repository", "loading_file", "keys_file", "state_folder")
    @classmethod
    def _find_home(cls, value: Path | None) -> Path | None:
        """Read ~ as a shell does; in a file of settings there is none to do so."""
        return value and expanded(value)

    @field_validator("host")
    @classmethod
    def _strip_brackets(cls, value: str) -> str:
        """Take an IPv6 address also as URLs have it."""
        return value.removeprefix("[").removesuffix("]")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ipaddress.ip_network(each)  # its error names the text
        return value

    @field_validator("store_url")
    @classmethod
    def _check_store_url(cls, value: str) -> str:
        if value and not value.startswith("postgresql://"):
            raise ValueError("must start with postgresql://, or be empty")
        return value

    @field_validator("triton_url", "advertised_url")
    @classmethod
    def _check_addresses(cls, value: str) -> str:
        """Bring the addresses into one form; each must be host:port, and none there twice."""
        urls = [_address(url.strip()) for url in value.split(",")] if value.strip() else []
        if len(set(urls)) < len(urls):
            raise ValueError("names a Triton twice")
        return ",".join(urls)

    @field_validator("advertised_url")
    @classmethod
    def _check_count(cls, value: str, info: ValidationInfo) -> str:
        # Without a TRITON_URL there is one Triton, the launched one.
        used = info.data.get("triton_url")
        if value and used is not None and value.count(",") != used.count(","):
            raise ValueError(f"must name as many Tritons as {PREFIX}TRITON_URL")
        return value

    @field_validator("roles")
    @classmethod
    def _check_roles(cls, value: str, info: ValidationInfo) -> str:
        roles = {role.strip() for role in value.split(",")}
        if not roles <= {SERVE, DISPATCH}:
            raise ValueError(f"must be {SERVE}, {DISPATCH}, or both with a comma between")
        told = info.data.get("advertised_url")
        if DISPATCH not in roles and told and not info.data.get("triton_url"):
            raise ValueError(
                f"a process that only serves announces no Triton: give {PREFIX}ADVERTISED_URL to "
                f"the dispatchers, or set {PREFIX}TRITON_URL too"
            )
        return ",".join(sorted(roles, reverse=True))

    @property
    def serves(self) -> bool:
        """Whether this process answers clients."""
        return SERVE in self.roles.split(",")

    @property
    def dispatches(self) -> bool:
        """Whether this process gives jobs to the Tritons."""
        return DISPATCH in self.roles.split(",")

    @property
    def reached_from_outside(self) -> bool:
        """Whether others than this machine may reach the server."""
        published = self.published_at.split(",") if self.published_at.strip() else [self.host]
        return not all(is_loopback(each.strip().strip("[]")) for each in published)

    @property
    def launches_triton(self) -> bool:
        """Whether this process runs a Triton of its own."""
        return self.dispatches and not self.triton_url

    @property
    def triton_grpc_urls(self) -> list[str]:
        """host:port of each Triton's gRPC; empty if this process asks those that are announced."""
        if self.launches_triton:
            return [f"127.0.0.1:{self.triton_grpc_port}"]
        return self.triton_url.split(",") if self.triton_url else []

    @property
    def advertised_grpc_urls(self) -> list[str]:
        """host:port at which others reach each of `triton_grpc_urls`."""
        return self.advertised_url.split(",") if self.advertised_url else self.triton_grpc_urls


def _address(url: str) -> str:
    """Return host:port, an IPv6 host in brackets as gRPC wants it."""
    host, _, port = url.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare:
        good = _is_ipv6(bare)
        host = f"[{bare}]"
    else:
        good = bool(_HOST.fullmatch(host))
    if not good or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"must be host:port, or several with commas between: {url!r}")
    return f"{host}:{port}"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def example(name: str) -> str | None:
    """Return what the variable of a field that is a list may hold; None for other fields."""
    examples = Settings.model_fields[name].examples
    return json.dumps(examples[0]) if examples else None


def unknown(variables: Iterable[str]) -> dict[str, str | None]:
    """Return the variables that look like settings and are none, each with the one likely meant.

    Args:
        variables: names, in any case, as `Settings` reads them.
    """
    fields = [field.upper() for field in Settings.model_fields]
    known = {PREFIX + field for field in fields} | OTHER_VARIABLES
    # Compared without the prefix, which would make any two names alike.
    likely = {
        name: difflib.get_close_matches(name.upper().removeprefix(PREFIX), fields, n=1)
        for name in variables
        if name.upper().startswith(PREFIX) and name.upper() not in known
    }
    return {name: PREFIX + found[0] if found else None for name, found in likely.items()}
