"""The manifests, rendered: safe by default, and in step with the code they run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stores.settings import REPOSITORY, documented

DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module", params=["base", "production"])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    folder = DEPLOY / "kubernetes" / request.param
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def pods(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (item["metadata"]["name"], item["spec"]["template"]["spec"])
        for item in objects
        if item["kind"] in ("Deployment", "StatefulSet", "Job")
    ]


def templates(objects: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The volumes that a StatefulSet makes for each of its pods."""
    return {
        item["metadata"]["name"]: item["spec"].get("volumeClaimTemplates", [])
        for item in objects
        if item["kind"] == "StatefulSet"
    }


def test_no_pod_has_more_rights_than_it_needs(objects: list[dict[str, Any]]) -> None:
    assert {name for name, _ in pods(objects)} == {"scoring", "stream", "jobs"}
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in [*pod["initContainers"], *pod["containers"]]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True, name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"]["drop"] == ["ALL"], name
            assert container["resources"]["limits"]["memory"], name
            assert re.search(r":\d", container["image"]), f"{name} should name a version of its image"


def test_every_volume_that_is_mounted_is_declared(objects: list[dict[str, Any]]) -> None:
    claims = templates(objects)
    for name, pod in pods(objects):
        declared = {volume["name"] for volume in pod["volumes"]}
        declared |= {claim["metadata"]["name"] for claim in claims.get(name, [])}
        for container in [*pod["initContainers"], *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= declared, name


def test_no_two_pods_share_a_volume(objects: list[dict[str, Any]]) -> None:
    assert not [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
    for name, pod in pods(objects):
        kinds = [set(volume) - {"name"} for volume in pod["volumes"]]
        assert all(kind <= {"emptyDir", "secret"} for kind in kinds), name
    for name, claims in templates(objects).items():
        assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteOnce"]], name


def test_every_part_has_its_exchange_beside_it(objects: list[dict[str, Any]]) -> None:
    """A sidecar of Kubernetes: started before the part, and ended after it, so that its last look sees all."""
    roles = {"scoring": "serve", "stream": "stream", "jobs": "jobs"}
    for name, pod in pods(objects):
        (exchange,) = pod["initContainers"]
        assert exchange["restartPolicy"] == "Always", name
        assert exchange["command"][2:5] == ["jobs.exchange", "--role", roles[name]]
        assert {"name": "data", "mountPath": "/data"} in exchange["volumeMounts"], name
        assert {"name": "data", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"], name


def policies(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "NetworkPolicy"}


@pytest.mark.finding("M8", "medium", "pods might call anywhere: code that got in could call home")
def test_a_pod_reaches_nothing_but_names_and_the_engines_that_it_needs(objects: list[dict[str, Any]]) -> None:
    found = policies(objects)
    closed = found.pop("closed")
    assert (closed["podSelector"], set(closed["policyTypes"])) == ({}, {"Ingress", "Egress"})
    assert "ingress" not in closed and "egress" not in closed
    leaving = {name: spec for name, spec in found.items() if "Egress" in spec["policyTypes"]}
    assert set(leaving) == {"engines"}
    (names,) = leaving["engines"]["podSelector"]["matchExpressions"]
    assert set(names["values"]) == {"scoring", "stream", "jobs"}
    for rule in leaving["engines"]["egress"]:
        assert rule["to"] and all("namespaceSelector" in peer for peer in rule["to"])
        assert {port["port"] for port in rule["ports"]} <= {53, 443, 5432, 6379, 9092}


@pytest.mark.finding("M8", "medium", "whoever scraped reached the scoring routes, too")
def test_whoever_scrapes_reaches_ports_of_metrics_only(objects: list[dict[str, Any]]) -> None:
    metrics = {
        port["containerPort"]
        for _, pod in pods(objects) for container in [*pod["initContainers"], *pod["containers"]]
        for port in container.get("ports", []) if port["name"] in ("metrics", "exchange")
    }  # fmt: skip
    assert metrics == {9464, 9465}
    for name, spec in policies(objects).items():
        for rule in spec.get("ingress", []):
            assert rule["from"] and rule["ports"], name
            labels = [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]]
            if {"tollgate/scrapes": "true"} in labels:
                assert {port["port"] for port in rule["ports"]} <= metrics, name


@pytest.mark.finding("M8", "medium", "every pod had the engines' secret")
def test_secrets_are_only_where_they_are_needed(objects: list[dict[str, Any]]) -> None:
    needed = {
        "scoring": {"tollgate-engines", "tollgate-tokens", "tollgate-keys"},
        "stream": {"tollgate-engines", "tollgate-keys"},
        "jobs": {"tollgate-engines", "tollgate-identity"},  # it rebuilds states, and signs nothing
    }
    found = {}
    for name, pod in pods(objects):
        sources = [source for container in pod["containers"] for source in container.get("envFrom", [])]
        found[name] = {source["secretRef"]["name"] for source in sources if "secretRef" in source}
        inside = [mount["name"] for mount in pod["initContainers"][0]["volumeMounts"]]
        assert set(inside) == {"data", "scratch"}, f"the exchange of {name} needs no keys and no tokens"
        found[name] |= {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert found == needed


@pytest.mark.finding(
    "M8", "medium", "any pod owned the rest: one user, one volume, all of it writable, no bound on scratch"
)
def test_a_part_runs_as_a_user_of_its_own_and_bounds_its_scratch(objects: list[dict[str, Any]]) -> None:
    users: dict[int, set[str]] = {}
    for name, pod in pods(objects):
        users.setdefault(pod["securityContext"]["runAsUser"], set()).add(name)
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], name
    assert {frozenset(names) for names in users.values()} == {
        frozenset({"scoring"}),
        frozenset({"stream"}),
        frozenset({"jobs"}),
    }


def test_the_manifests_fit_their_schemas(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        kubernetes_validate.validate(item, "1.31", strict=True)


def test_every_setting_and_module_that_is_named_exists(objects: list[dict[str, Any]]) -> None:
    known = {variable for _, group in documented() for variable, _ in group}
    for item in objects:
        if item["kind"] == "ConfigMap":
            assert {name for name in item["data"] if name.startswith("TOLLGATE_")} <= known
    for name, pod in pods(objects):
        for container in [*pod["initContainers"], *pod["containers"]]:
            command = container["command"]
            module = command[command.index("-m") + 1] if "-m" in command else command[2].partition(":")[0]
            assert importlib.util.find_spec(module) is not None, f"{name} runs {module}"


def test_probes_and_services_point_at_declared_ports(objects: list[dict[str, Any]]) -> None:
    for name, pod in pods(objects):
        for container in pod["containers"]:
            named = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                target = container.get(probe, {}).get("httpGet")
                assert target is None or target["port"] in named, f"{name} {probe}"


def test_the_image_holds_every_package_and_ends_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= set(re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE))
    assert text.index("USER 10001:10001") < text.index("CMD")
    assert "--require-hashes" in text
