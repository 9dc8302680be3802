"""docker-compose.yml against the compose specification's schema and against what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from frontend import serving
from frontend.pictures import workers
from frontend.settings import Settings
from tests.docs.pages import Block, blocks

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
COMPOSE: dict[str, Any] = YAML(typ="safe").load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXIT_TIMEOUT = "TRITON_EXIT_TIMEOUT_S"
SILENCE_TIMEOUT = "ARTMANCER_STUB_SILENCE_TIMEOUT_S"
VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")
DEFAULTS = dict(VARIABLE.findall(TEXT))
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", VARIABLE.sub(lambda found: found[2], text))
    assert match
    return float(match[1])


def test_it_is_a_compose_file() -> None:
    command = [str(Path(sys.prefix, "bin", "check-jsonschema"))]
    command += ["--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_explained_with_its_default() -> None:
    # COMPOSE_PROFILES is Compose's own.
    assert DEFAULTS | {"COMPOSE_PROFILES": "gpu"} == EXAMPLE


def test_every_setting_of_the_frontend_exists() -> None:
    for name in SERVICES["frontend"]["environment"]:
        assert name.removeprefix("ARTMANCER_").lower() in Settings.model_fields


def test_only_the_frontend_and_the_proxy_are_published() -> None:
    published = [name for name, service in SERVICES.items() if "ports" in service]
    assert published == ["frontend", "proxy"]
    for name in published:
        (port,) = SERVICES[name]["ports"]
        assert VARIABLE.sub(lambda found: found[2], port).startswith("127.0.0.1:")
    assert SERVICES["proxy"]["networks"] == ["outside"]
    for name in ("triton", "triton-second", "triton-cpu"):
        assert list(SERVICES[name]["networks"]) == ["models"]
    assert COMPOSE["networks"]["models"]["internal"] is True
    assert DEFAULTS["ARTMANCER_TRITON_URL"] == "triton:8001"
    assert SERVICES["triton-cpu"]["networks"]["models"]["aliases"] == ["triton"]


@pytest.mark.parametrize(
    ("env", "refused"),
    [
        ({}, False),
        ({"ARTMANCER_BIND": "0.0.0.0"}, True),
        ({"ARTMANCER_PROXY_BIND": "192.0.2.1"}, True),
        ({"ARTMANCER_BIND": "0.0.0.0", "ARTMANCER_ALLOW_ANONYMOUS": "true"}, False),
        ({"ARTMANCER_BIND": "0.0.0.0", "ARTMANCER_KEYS_FILE": "/keys/keys.toml"}, False),
    ],
    ids=str,
)
def test_the_frontend_knows_where_it_is_published(env: dict[str, str], *, refused: bool) -> None:
    given: dict[str, Any] = {
        name.removeprefix("ARTMANCER_").lower(): VARIABLE.sub(
            lambda found: env.get(found[1], found[2]), value
        )
        for name, value in SERVICES["frontend"]["environment"].items()
        if name in ("ARTMANCER_PUBLISHED_AT", "ARTMANCER_KEYS_FILE", "ARTMANCER_ALLOW_ANONYMOUS")
    }
    settings = Settings(host="0.0.0.0", **given)
    let_in = settings.allow_anonymous or settings.keys_file is not None
    assert (settings.reached_from_outside and not let_in) is refused
    assert any(each.endswith(":/keys:ro") for each in SERVICES["frontend"]["volumes"])


@pytest.mark.parametrize("name", ["triton", "triton-second", "triton-cpu"])
def test_triton_has_time_to_finish_its_jobs(name: str) -> None:
    service = SERVICES[name]
    timeout = float(VARIABLE.sub(lambda found: found[2], service["environment"][EXIT_TIMEOUT]))
    assert seconds(service["stop_grace_period"]) > timeout
    assert timeout >= float(DEFAULTS["ARTMANCER_JOB_TIMEOUT_S"])
    assert service["restart"] == "unless-stopped"


def test_the_frontend_waits_for_models_that_answer() -> None:
    waits = SERVICES["frontend"]["depends_on"]
    # Not required, because no profile has all of them.
    expected = {"condition": "service_healthy", "required": False}
    others = ("triton", "triton-second", "triton-cpu", "postgres")
    assert waits == dict.fromkeys(others, expected)


def test_only_the_gpu_profile_reserves_a_gpu() -> None:
    for name, service in SERVICES.items():
        if name in ("triton", "triton-second", "export"):
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert device["driver"] == "nvidia"
            assert device["capabilities"] == ["gpu"]
            assert device["device_ids"] == [
                "${SECOND_GPU:-1}" if name == "triton-second" else "${GPU:-0}"
            ]
        else:
            assert "deploy" not in service


def test_serving_reads_what_export_writes() -> None:
    written = {each.split(":")[1]: each.split(":")[0] for each in SERVICES["export"]["volumes"][:2]}
    assert SERVICES["export-cpu"]["volumes"] == SERVICES["export"]["volumes"][:2]
    volumes = SERVICES["triton"]["volumes"][:2]
    read = {each.split(":")[1]: each.split(":")[0] for each in volumes}
    assert written == read == {"/bundles": "bundles", "/engines": "engines"}
    assert all(each.endswith(":ro") for each in volumes)
    builds = [SERVICES[name]["build"] for name in ("triton", "export")]
    assert len({build["dockerfile"] for build in builds}) == 1


@pytest.mark.parametrize("name", ["triton", "triton-second", "triton-cpu"])
def test_the_frontend_reads_where_triton_tells_how_far_its_load_is(name: str) -> None:
    assert "loading:/run/artmancer" in SERVICES[name]["volumes"]
    assert "loading:/run/artmancer:ro" in SERVICES["frontend"]["volumes"]
    assert SERVICES[name]["environment"]["ARTMANCER_LOADING_FILE"] == f"/run/artmancer/{name}"
    found = re.compile(r"ARTMANCER_LOADING_FILE=(\S+)")
    folder, file = (
        found.findall((ROOT / "docker" / f"{image}.Dockerfile").read_text())
        for image in ("frontend", "triton")
    )
    assert (folder, file) == (["/run/artmancer"], ["/run/artmancer/loading"])


def test_every_container_is_read_only_and_has_no_capabilities() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True
        temporary, *others = service["tmpfs"]
        assert re.fullmatch(r"/tmp:size=\d+[mg]", temporary)
        assert others == (["/var/run/postgresql:size=1m"] if name == "postgres" else [])
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_container_has_bounds_of_processes_and_of_memory() -> None:
    for name, service in SERVICES.items():
        assert 0 < service["pids_limit"] <= 8192
        # What an export needs has not been measured, and no stranger reaches it.
        assert ("mem_limit" in service) == (not name.startswith("export"))


def test_the_frontend_s_memory_holds_what_its_settings_allow() -> None:
    settings = Settings()
    # Two are read, and two are with each of two Tritons.
    edits = 6 * workers.MAX_EDIT_BYTES + settings.image_store_bytes
    # A body is held as bytes, text and file at worst.
    pending = 3 * settings.max_pending_body_bytes + settings.max_pending_answer_bytes
    limit = int(DEFAULTS["FRONTEND_MEMORY"].removesuffix("g")) * 2**30
    assert edits + pending + 3 * workers.MAX_HELD_BYTES // 2 < limit - 3 * 2**29


@pytest.mark.parametrize(
    ("name", "dockerfile", "services"),
    [
        ("PYTHON_IMAGE", "frontend", {"frontend", "frontend-second"}),
        (
            "TRITON_IMAGE",
            "triton",
            {"triton", "triton-second", "triton-cpu", "export", "export-cpu"},
        ),
    ],
)
def test_a_base_image_reaches_its_build_and_has_one_default(
    name: str, dockerfile: str, services: set[str]
) -> None:
    text = (ROOT / "docker" / f"{dockerfile}.Dockerfile").read_text()
    assert f"ARG {name}={DEFAULTS[name]}\n" in text
    builds = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert {each for each in builds if name in builds[each]["args"]} == services
    assert {builds[each]["dockerfile"] for each in services} == {f"docker/{dockerfile}.Dockerfile"}


def test_up_starts_no_export() -> None:
    assert SERVICES["frontend"]["profiles"] == ["gpu", "cpu"]
    assert SERVICES["triton"]["profiles"] == ["gpu"]
    assert SERVICES["triton-second"]["profiles"] == ["second-gpu"]
    assert SERVICES["triton-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["frontend-second"]["profiles"] == ["postgres"]
    assert SERVICES["postgres"]["profiles"] == ["postgres"]
    assert SERVICES["export"]["profiles"] == SERVICES["export-cpu"]["profiles"] == ["export"]


def test_the_second_frontend_is_as_the_first_and_behind_the_same_name() -> None:
    first, second = (SERVICES[name].copy() for name in ("frontend", "frontend-second"))
    assert second["networks"]["outside"]["aliases"] == ["frontend"]
    assert list(second["networks"]) == first["networks"]
    for service in (first, second):
        for key in ("profiles", "networks", "ports"):
            service.pop(key, None)
    assert first == second
    text = (ROOT / "docker" / "nginx.conf").read_text()
    assert "set $frontend frontend:8080;" in text
    # Nothing keeps a client at one of them.
    assert not re.search(r"ip_hash|sticky|hash \$", text)


def test_the_database_is_the_frontends_alone_and_named_by_its_address() -> None:
    database = SERVICES["postgres"]
    assert database["networks"] == ["store"]
    assert COMPOSE["networks"]["store"]["internal"] is True
    users = {name for name, service in SERVICES.items() if "store" in service.get("networks", ())}
    assert users == {"postgres", "frontend", "frontend-second"}
    example = (ROOT / ".env.example").read_text()
    user = database["environment"]["POSTGRES_USER"]
    url = f"postgresql://{user}:PASSWORD@postgres:5432/{user}"
    assert url in example
    assert Settings(store_url=url).store_url == url
    # It starts with no password that everybody knows.
    assert database["environment"]["POSTGRES_PASSWORD"] == "${STORE_PASSWORD:-}"
    assert DEFAULTS["STORE_PASSWORD"] == DEFAULTS["ARTMANCER_STORE_URL"] == ""


def test_a_frontend_has_time_to_let_its_jobs_end() -> None:
    service = SERVICES["frontend"]
    drain_s = float(DEFAULTS["ARTMANCER_DRAIN_S"])
    assert seconds(service["stop_grace_period"]) > drain_s + serving._STOP_TIMEOUT_S


def test_what_triton_is_told_is_for_the_entry_point() -> None:
    assert SERVICES["triton-cpu"]["environment"]["TRITON_PROFILE"] == "cpu"
    entrypoint = (ROOT / "docker" / "triton_entrypoint.py").read_text()
    for name in ("TRITON_PROFILE", EXIT_TIMEOUT, SILENCE_TIMEOUT):
        assert f'"{name}"' in entrypoint
        for service in ("triton", "triton-second", "triton-cpu"):
            assert name in SERVICES[service]["environment"]


def test_waiting_jobs_outlast_a_stub_that_falls_silent() -> None:
    silence_s = float(DEFAULTS[SILENCE_TIMEOUT])
    assert silence_s == Settings().stub_silence_timeout_s
    for recovery_s in (DEFAULTS["ARTMANCER_RECOVERY_TIMEOUT_S"], Settings().recovery_timeout_s):
        assert float(recovery_s) > 2 * silence_s


OVERRIDES = [
    block
    for page in ("deployment.md", "operating.md")
    for block in blocks(ROOT / "docs" / page)
    if block.text.startswith("# docker-compose.override.yml")
]


def has_compose() -> bool:
    command = ["docker", "compose", "version"]
    return (
        bool(shutil.which("docker"))
        and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
@pytest.mark.parametrize("override", OVERRIDES, ids=lambda block: block.place)
def test_compose_reads_the_overrides_of_the_docs(override: Block, tmp_path: Path) -> None:
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".env.example").rename(tmp_path / ".env")
    (tmp_path / "docker-compose.override.yml").write_text(override.text)
    command = ["docker", "compose", "--profile", "gpu", "--profile", "second-gpu", "config"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = YAML(typ="safe").load(done.stdout)["services"]
    if "triton-third" in override.text:
        gpus = [
            services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
            for name in ("triton", "triton-second", "triton-third")
        ]
        assert gpus == [["0"], ["1"], ["2"]]
        assert "triton-third" in services["frontend"]["depends_on"]


def test_the_docs_extend_the_shipped_file() -> None:
    assert len(OVERRIDES) == 3
    (third,) = (block.text for block in OVERRIDES if "extends" in block.text)
    loaded = YAML().load(third)["services"]
    assert loaded["triton-third"]["extends"] == {
        "file": "docker-compose.yml",
        "service": "triton-second",
    }
    assert loaded["triton-third"]["environment"]["ARTMANCER_LOADING_FILE"].endswith("/triton-third")
    assert loaded["frontend"]["depends_on"].keys() == {"triton-third"}
