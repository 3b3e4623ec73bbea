"""The manifests, rendered: safe by default, and in step with the code they run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from jobs.schedule import JOBS
from stores.settings import REPOSITORY, documented

DEPLOY = REPOSITORY / "deploy"
CRON_DAYS = {"mon": "1"}


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
    found = []
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            found.append((item["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]["spec"]))
        elif item["kind"] in ("Deployment", "StatefulSet"):
            found.append((item["metadata"]["name"], spec["template"]["spec"]))
    return found


def test_no_pod_has_more_rights_than_it_needs(objects: list[dict[str, Any]]) -> None:
    assert {name for name, _ in pods(objects)} == {
        "scoring",
        "stream",
        "profiles",
        "parity",
        "drift",
        "compact",
        "run-metrics",
    }
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True, name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"]["drop"] == ["ALL"], name
            assert container["resources"]["limits"]["memory"], name
            assert re.search(r":\d", container["image"]), f"{name} should name a version of its image"


def test_every_volume_that_is_mounted_is_declared(objects: list[dict[str, Any]]) -> None:
    for name, pod in pods(objects):
        declared = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= declared, name


def test_cron_jobs_run_when_the_schedule_does(objects: list[dict[str, Any]]) -> None:
    jobs = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "CronJob"}
    assert set(jobs) == {job.name for job in JOBS}
    for job in JOBS:
        day = CRON_DAYS.get(job.cron.get("day_of_week", ""), "*")
        assert jobs[job.name]["schedule"] == f"{job.cron['minute']} {job.cron['hour']} * * {day}"
        assert jobs[job.name]["concurrencyPolicy"] == "Forbid"
        command = jobs[job.name]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command[-2:] == ["--once", job.name]


def test_every_setting_and_module_that_is_named_exists(objects: list[dict[str, Any]]) -> None:
    known = {variable for _, group in documented() for variable, _ in group}
    for item in objects:
        if item["kind"] == "ConfigMap":
            assert {name for name in item["data"] if name.startswith("TOLLGATE_")} <= known
    for name, pod in pods(objects):
        for container in pod["containers"]:
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
