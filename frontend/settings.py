"""Owns every setting of the frontend: names, defaults and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]

CHECKOUT = Path(__file__).parents[1]


class Settings(BaseSettings):
    """Read once, at start, from environment variables named `ARTMANCER_<FIELD>`.

    Raises:
        pydantic.ValidationError: a variable is out of its range.
    """

    model_config = SettingsConfigDict(env_prefix="ARTMANCER_", frozen=True)

    host: str = Field(default="127.0.0.1", description="address the frontend listens on")
    port: Port = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    cors_origins: tuple[str, ...] = Field(
        default=(), description='origins a browser may call from, as a JSON list; ["*"] means any'
    )

    triton_url: str = Field(
        default="",
        description="host:port of an external Triton's gRPC, or of several with the same models, "
        "separated by commas; empty: one is launched here",
    )
    triton_http_port: Port = 8000
    triton_grpc_port: Port = 8001
    triton_metrics_port: Port = 8002
    model_repository: Path = CHECKOUT / "model_repository"
    model_config_name: str = Field(default="cpu", description="profile of the launched Triton")

    loading_file: Path | None = Field(
        default=None,
        description="file in which Triton tells how far it is with loading the models, by the "
        "same variable; empty: none of an external Triton, a launched one has its own",
    )

    triton_start_timeout_s: Seconds = Field(
        default=180.0, description="how long the launched Triton may take to load its models"
    )
    triton_stop_timeout_s: Seconds = Field(
        default=10.0,
        description="how long the launched Triton may take to stop before it is killed",
    )
    triton_restart_limit: int = Field(
        default=5, ge=0, description="restarts of the launched Triton in a row before giving up"
    )

    ping_interval_s: Seconds = Field(
        default=1.0, description="how often Triton is asked for its health"
    )
    ping_timeout_s: Seconds = Field(
        default=1.5, description="two missed answers in a row: Triton is away"
    )
    recovery_timeout_s: Seconds = Field(
        default=300.0, description="how long waiting jobs outlast an absent Triton"
    )
    silence_timeout_s: Seconds = Field(
        default=120.0, description="the oldest running job fails when it is silent for so long"
    )
    job_timeout_s: Seconds = Field(default=1800.0, description="longest a job may be with Triton")
    cancel_timeout_s: Seconds = Field(
        default=2.0, description="how long the model may take to answer a cancel"
    )
    cancel_grace_s: Seconds = Field(
        default=10.0,
        description="how long a cancelled job may take to end before its stream is cut",
    )

    max_queue_size: int = Field(
        default=128, ge=1, le=512, description="most jobs that wait to start"
    )
    max_in_flight: int = Field(
        default=2, ge=1, le=64, description="most jobs that Triton has at once"
    )
    result_ttl_s: Seconds = Field(default=3600.0, description="how long a finished job is kept")
    memory_bytes: Bytes = Field(
        default=2**30,
        description="bound on all jobs' images and events; half may be unfinished jobs'",
    )
    heartbeat_s: Seconds = Field(
        default=5.0, description="an idle event stream is pinged this often"
    )

    mask_timeout_s: Seconds = Field(
        default=30.0, description="longest a mask request may be with Triton"
    )
    max_masks_in_flight: int = Field(
        default=16, ge=1, le=64, description="most mask requests that Triton has at once"
    )
    max_masks_waiting: int = Field(
        default=64, ge=1, le=512, description="most mask requests that wait to start"
    )
    image_store_bytes: Bytes = Field(
        default=256 * 2**20,
        description="bound on the pictures kept for mask requests by image_id",
    )
    image_store_ttl_s: Seconds = Field(
        default=3600.0, description="how long such a picture is kept after its last use"
    )

    max_body_bytes: Bytes = Field(default=64 * 2**20, description="largest request body")
    max_pending_body_bytes: Bytes = Field(
        default=256 * 2**20, description="most bytes of all bodies being handled at one moment"
    )
    max_image_pixels: Bytes = Field(
        default=2**25, description="largest width x height of an edit's images"
    )
    max_mask_pixels: Bytes = Field(
        default=2**26,
        description="the same where an object is extracted; smart_mask has its own, as large",
    )
    max_conditional_images: int = Field(default=4, ge=1)
    image_workers: int = Field(default=2, ge=1, description="threads that decode and encode images")

    @field_validator("loading_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("triton_url")
    @classmethod
    def _check_triton_url(cls, value: str) -> str:
        """Strip the addresses; each must be host:port, and none may be there twice."""
        urls = [url.strip() for url in value.split(",")] if value.strip() else []
        for url in urls:
            host, _, port = url.rpartition(":")
            if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"must be host:port, or several with commas between: {url!r}")
        if len(set(urls)) < len(urls):
            raise ValueError("names a Triton twice")
        return ",".join(urls)

    @property
    def triton_grpc_urls(self) -> list[str]:
        """host:port of each Triton's gRPC."""
        return (self.triton_url or f"127.0.0.1:{self.triton_grpc_port}").split(",")
