"""deploy/kubernetes against the schemas of Kubernetes, and against what it promises."""

from __future__ import annotations

import contextlib
import functools
import re
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
from tests.docs.pages import blocks
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
APPLIED += [FOLDER / "export-cpu", FOLDER / "weights"]
PAGE = ROOT / "docs" / "kubernetes.md"
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
        if kind == "Pod":
            yield name, each["spec"]


def container(workload: str, name: str) -> dict[str, Any]:
    template = resources()["Deployment", workload]["spec"]["template"]["spec"]
    return next(each for each in template["containers"] if each["name"] == name)


def environment(of: dict[str, Any]) -> dict[str, str | None]:
    return {each["name"]: each.get("value") for each in of["env"]}


def configuration() -> dict[str, str]:
    """Return what all frontends and dispatchers have in common."""
    data: dict[str, str] = resources()["ConfigMap", "artmancer"]["data"]
    return data


def put_together(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what `kubectl apply -k` sends, by kind and name."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = {}
    for each in YAML(typ="safe").load_all(done.stdout):
        if not each["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(each, VERSION, strict=True)
        found[each["kind"], each["metadata"]["name"]] = each
    return found


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


needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


@needs_kubectl
@pytest.mark.parametrize("folder", APPLIED, ids=lambda folder: str(folder.relative_to(FOLDER)))
def test_it_is_put_together_and_still_of_kubernetes(folder: Path) -> None:
    for (kind, _), each in put_together(folder).items():
        assert kind == "Namespace" or each["metadata"]["namespace"] == "artmancer"


@needs_kubectl
@pytest.mark.parametrize("scaled", [False, True], ids=["fixed", "keda"])
def test_the_kustomization_of_the_docs_reaches_what_it_names(
    tmp_path: Path, *, scaled: bool
) -> None:
    (block,) = (each for each in blocks(PAGE) if each.text.startswith("# mine/kustomization.yaml"))
    text = block.text
    if scaled:
        text = text.replace("# components:", "components:")
    mine = tmp_path / "mine" / "kustomization.yaml"
    mine.parent.mkdir()
    mine.write_text(text)
    shutil.copytree(FOLDER, tmp_path / "artmancer" / "deploy" / "kubernetes")
    found = put_together(mine.parent)
    frontend, triton = (
        found["Deployment", name]["spec"]["template"]["spec"] for name in ("frontend", "triton")
    )
    images = [each["image"] for pod in (frontend, triton) for each in pod["containers"]]
    assert images == [
        f"registry.example/artmancer-{name}:v1" for name in ("frontend", "triton", "frontend")
    ]
    host = found["Ingress", "frontend"]["spec"]["rules"][0]["host"]
    assert host in found["ConfigMap", "artmancer"]["data"]["ARTMANCER_ALLOWED_HOSTS"]
    assert host not in (FOLDER / "base" / "config.yaml").read_text()
    for claim in ("bundles", "engines"):
        assert found["PersistentVolumeClaim", claim]["spec"]["storageClassName"] == "shared"
    assert (("ScaledObject", "triton") in found) is scaled
    assert ("replicas" in found["Deployment", "triton"]["spec"]) is not scaled


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
    # All of them read the same, because whoever opens the store also bounds and tidies it.
    assert of["envFrom"] == [{"configMapRef": {"name": "artmancer"}}]
    values = configuration() | environment(of)
    values.pop("POD_IP", None)
    for variable, value in values.items():
        assert variable.removeprefix("ARTMANCER_").lower() in Settings.model_fields, variable
        if value is not None:
            monkeypatch.setenv(variable, value.replace("$(POD_IP)", "10.1.2.3"))
    assert Settings().roles == role
    assert "ARTMANCER_STORE_URL" in values


@pytest.mark.parametrize("pod_ip", ["10.1.2.3", "fd00::3"])
def test_frontends_ask_each_triton_by_the_address_of_its_pod(
    monkeypatch: pytest.MonkeyPatch, pod_ip: str
) -> None:
    env = container("triton", "dispatcher")["env"]
    names = [each["name"] for each in env]
    # A variable may only use those before it.
    assert names.index("POD_IP") < names.index("ARTMANCER_ADVERTISED_URL")
    assert env[names.index("POD_IP")]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    for variable, value in environment(container("triton", "dispatcher")).items():
        if value is not None:
            monkeypatch.setenv(variable, value.replace("$(POD_IP)", pod_ip))
    [used] = Settings().triton_grpc_urls
    [told] = Settings().advertised_grpc_urls
    assert used == "127.0.0.1:8001"
    assert told == ("10.1.2.3:8001" if "." in pod_ip else "[fd00::3]:8001")
    # And they are told no address: one that leads to several Tritons would scatter the pictures.
    serving = configuration() | environment(container("frontend", "frontend"))
    assert "ARTMANCER_TRITON_URL" not in serving
    assert "ARTMANCER_TRITON_URL" not in (ROOT / "docker" / "frontend.Dockerfile").read_text()
    assert ("Service", "triton") not in resources()


def test_jobs_in_flight_are_finished() -> None:
    spec = resources()["Deployment", "triton"]["spec"]["template"]["spec"]
    grace = spec["terminationGracePeriodSeconds"]
    assert grace > int(environment(container("triton", "triton"))["TRITON_EXIT_TIMEOUT_S"] or 0)
    assert grace > int(environment(container("triton", "dispatcher"))["ARTMANCER_DRAIN_S"] or 0)
    assert "livenessProbe" not in container("triton", "triton")


def test_waiting_jobs_outlast_a_triton_that_ends_and_one_that_starts() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    (load_s,) = set(re.findall(r"\$\{ARTMANCER_RECOVERY_TIMEOUT_S:-(\d+)\}", compose))
    end_s = resources()["Deployment", "triton"]["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert int(configuration()["ARTMANCER_RECOVERY_TIMEOUT_S"]) >= end_s + int(load_s)


def test_the_ingress_leads_to_a_name_that_the_frontend_answers_to() -> None:
    (rule,) = resources()["Ingress", "frontend"]["spec"]["rules"]
    assert rule["host"] in configuration()["ARTMANCER_ALLOWED_HOSTS"]


def test_export_has_the_files_that_an_operator_names() -> None:
    spec = resources()["Job", "export"]["spec"]["template"]["spec"]
    (each,) = spec["containers"]
    mounted = {each["name"]: each["mountPath"] for each in each["volumeMounts"]}
    example = (ROOT / ".env.example").read_text()
    assert f"{mounted['weights']}/FastSAM-s.pt" in example
    claims = {
        each["persistentVolumeClaim"]["claimName"]
        for each in spec["volumes"]
        if "persistentVolumeClaim" in each
    }
    assert claims == {"bundles", "engines", "weights"}
    for claim in claims:
        assert ("PersistentVolumeClaim", claim) in resources()
    (pod,) = resources()["Pod", "weights"]["spec"]["containers"]
    assert pod["volumeMounts"] == [{"name": "weights", "mountPath": mounted["weights"]}]


def test_the_number_of_pods_is_whose_who_scales() -> None:
    scaler = resources()["HorizontalPodAutoscaler", "frontend"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "frontend"
    assert "replicas" not in resources()["Deployment", "frontend"]["spec"]


def test_only_frontends_reach_triton() -> None:
    policies = {name: each for (kind, name), each in resources().items() if kind == "NetworkPolicy"}
    nobody = policies["nobody"]["spec"]
    assert (nobody["podSelector"], nobody["policyTypes"]) == ({}, ["Ingress"])
    assert "ingress" not in nobody
    (rule,) = policies["frontend-to-triton"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "frontend"
    assert [each["port"] for each in rule["ports"]] == [8001]
    # The port that dispatchers announce is the one that is let through, and Triton's own.
    told = environment(container("triton", "dispatcher"))["ARTMANCER_ADVERTISED_URL"] or ""
    ports = {each["name"]: each["containerPort"] for each in container("triton", "triton")["ports"]}
    assert told.endswith(f":{ports['grpc']}")
    assert ports["grpc"] == 8001


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
    assert trigger["metadata"]["targetQueryValue"] == configuration()["ARTMANCER_MAX_IN_FLIGHT"]
