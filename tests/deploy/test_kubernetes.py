"""deploy/kubernetes against the schemas of Kubernetes, and against what it promises."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.transactions import Bounds
from frontend.settings import Settings
from tests.frontend.jobs.samples import claimed, created, done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
KUSTOMIZED = sorted(FOLDER.rglob("kustomization.yaml"))
# What `kubectl apply -k` takes.
APPLIED = [*sorted((FOLDER / "overlays").iterdir()), FOLDER / "base", FOLDER / "export"]
APPLIED += [FOLDER / "export-cpu"]
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(path.read_text()))


@functools.cache
def resources() -> dict[tuple[str, str], dict[str, Any]]:
    """Return all whole resources by kind and name; patches are no resources."""
    found = {}
    for file in KUSTOMIZED:
        for name in documents(file)[0]["resources"]:
            if (file.parent / name).is_file():
                for each in documents(file.parent / name):
                    found[each["kind"], each["metadata"]["name"]] = each
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for (kind, name), each in resources().items():
        if kind in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]["spec"]


def container(workload: str, name: str) -> dict[str, Any]:
    template = resources()["Deployment", workload]["spec"]["template"]["spec"]
    return next(each for each in template["containers"] if each["name"] == name)


def environment(of: dict[str, Any]) -> dict[str, str | None]:
    return {each["name"]: each.get("value") for each in of["env"]}


def test_each_resource_is_one_of_kubernetes() -> None:
    checked = 0
    for each in resources().values():
        if not each["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(each, VERSION, strict=True)
            checked += 1
    assert checked > 15


def test_a_misspelt_field_is_found() -> None:
    wrong = resources()["Service", "frontend"] | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_file_is_used_and_there() -> None:
    used = set(KUSTOMIZED)
    for file in KUSTOMIZED:
        (kustomization,) = documents(file)
        for name in kustomization["resources"] + kustomization.get("components", []):
            assert (file.parent / name).exists(), (file, name)
            used.add(file.parent / name)
        patches = kustomization.get("patches", ())
        used |= {file.parent / each["path"] for each in patches if "path" in each}
    files = set(FOLDER.rglob("*.yaml"))
    assert files <= used
    assert all(path.exists() for path in used)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", APPLIED, ids=lambda folder: str(folder.relative_to(FOLDER)))
def test_it_is_put_together_and_still_of_kubernetes(folder: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for each in YAML(typ="safe").load_all(done.stdout):
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "artmancer"


def test_no_container_has_more_than_it_needs() -> None:
    for name, spec in pods():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for each in spec["containers"]:
            assert each["securityContext"].items() >= RESTRICTED.items(), (name, each["name"])
            assert "memory" in each["resources"]["limits"], (name, each["name"])
    assert resources()["Namespace", "artmancer"]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }


@pytest.mark.parametrize(
    ("workload", "name", "role"),
    [("frontend", "frontend", "serve"), ("triton", "dispatcher", "dispatch")],
)
def test_every_setting_exists_and_suits(
    monkeypatch: pytest.MonkeyPatch, workload: str, name: str, role: str
) -> None:
    of = container(workload, name)
    values = environment(of)
    if "envFrom" in of:
        values |= resources()["ConfigMap", "artmancer"]["data"]
    for variable, value in values.items():
        assert variable.removeprefix("ARTMANCER_").lower() in Settings.model_fields, variable
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert Settings().roles == role
    assert "ARTMANCER_STORE_URL" in values


def test_jobs_in_flight_are_finished() -> None:
    spec = resources()["Deployment", "triton"]["spec"]["template"]["spec"]
    grace = spec["terminationGracePeriodSeconds"]
    assert grace > int(environment(container("triton", "triton"))["TRITON_EXIT_TIMEOUT_S"] or 0)
    assert grace > int(environment(container("triton", "dispatcher"))["ARTMANCER_DRAIN_S"] or 0)
    assert "livenessProbe" not in container("triton", "triton")


def test_only_frontends_reach_triton() -> None:
    policies = {name: each for (kind, name), each in resources().items() if kind == "NetworkPolicy"}
    nobody = policies["nobody"]["spec"]
    assert (nobody["podSelector"], nobody["policyTypes"]) == ({}, ["Ingress"])
    assert "ingress" not in nobody
    (rule,) = policies["frontend-to-triton"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "frontend"
    assert [each["port"] for each in rule["ports"]] == [8001]


async def test_keda_counts_the_jobs_that_have_not_ended(postgres: PostgresServer) -> None:
    (trigger,) = resources()["ScaledObject", "triton"]["spec"]["triggers"]
    url = postgres.new_database()
    store = SqlStore(await PostgresDriver.open(url), Bounds(bytes=10**7, waiting=10), ttl_s=60)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        for job_id in ("ended", "running", "waiting"):
            await created(store, job_id)
        await done(store, await claimed(store))
        await claimed(store)
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        assert await connection.fetchval(trigger["metadata"]["query"]) == 2
    in_flight = resources()["ConfigMap", "artmancer"]["data"]["ARTMANCER_MAX_IN_FLIGHT"]
    assert trigger["metadata"]["targetQueryValue"] == in_flight
