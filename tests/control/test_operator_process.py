from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engram.spec.names import API_VERSION, KIND
from tests.cluster import audit
from tests.cluster.api import Api, Object
from tests.cluster.control_plane import API_SERVER
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until
from tests.control.operator_process import OperatorProcess, operator

pytestmark = pytest.mark.control

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01-digits.yaml"
CHILDREN = {
    "Service": {"digits-aggregation"},
    "ConfigMap": {"digits-spec"},
    "Secret": {"digits-credentials", "digits-worker-tokens"},
    "Job": {"digits-aggregation", "digits-edge"},
}
PODS = 6
COLLECTED_WITHIN = 90
"""Seconds: the garbage collector looks for CRDs that were made anew every 30 s."""
TWO_WORKERS = {"dataset": {"name": "digits"}, "workers": [{"name": "edge", "replicas": 2}]}


def children(api: Api, namespace: str) -> dict[str, Object]:
    """The children and pods of all jobs, by kind and name."""
    return {
        f"{kind}/{item['metadata']['name']}": item
        for kind in (*CHILDREN, "Pod")
        for item in api.list(kind, namespace)
        if "engram.dev/job" in (item["metadata"].get("labels") or {})
    }


def names(found: dict[str, Object], kind: str) -> set[str]:
    return {key.partition("/")[2] for key in found if key.startswith(f"{kind}/")}


def status(api: Api, namespace: str, name: str = "digits") -> dict[str, Any]:
    found: dict[str, Any] = api.get(KIND, name, namespace).get("status") or {}
    return found


def all_made(api: Api, namespace: str) -> dict[str, Object] | None:
    found = children(api, namespace)
    whole = all(names(found, kind) == wanted for kind, wanted in CHILDREN.items())
    return found if whole and len(names(found, "Pod")) == PODS else None


def looks(process: OperatorProcess) -> float:
    """How often the operator has looked at a job."""
    lines = process.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("engram_operator_reconciles"))


@pytest.mark.usefixtures("crd")
def test_applied_pods_come_and_a_killed_operator_changes_nothing_when_it_is_back(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    log = tmp_path / "operator.log"
    arguments = (control_plane.kubeconfig, log, "--namespace", namespace)
    with operator(*arguments):
        kubectl.apply(DIGITS)
        began = time.monotonic()
        before = until(lambda: all_made(api, namespace), "all children and pods", every=0.02)
        print(f"apply to {PODS} pods: {time.monotonic() - began:.2f} s")
        until(lambda: status(api, namespace).get("phase") == "Starting", "the phase Starting")
        job = api.get(KIND, "digits", namespace)
        assert not job["metadata"].get("finalizers")
        assert not any("kopf" in name for name in job["metadata"].get("annotations") or {})
        for key, item in before.items():
            if not key.startswith("Pod/"):
                (owner,) = item["metadata"]["ownerReferences"]
                assert owner["uid"] == job["metadata"]["uid"], key
        writes = audit.count_writes(control_plane.audit_log, agent="engram-operator", namespace=namespace)
        assert writes.total() <= 12, writes
    settled = status(api, namespace)
    with operator(*arguments) as again:
        until(lambda: looks(again) > 0, "a look at the job")
        after = children(api, namespace)
        assert {key: item["metadata"]["uid"] for key, item in after.items()} == {
            key: item["metadata"]["uid"] for key, item in before.items()
        }
        for key, item in after.items():
            if key.startswith(("ConfigMap/", "Secret/", "Service/")):
                assert item["metadata"]["resourceVersion"] == before[key]["metadata"]["resourceVersion"], key
        assert status(api, namespace)["phase"] == settled["phase"]
        assert again.stop() == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.usefixtures("crd")
def test_a_deleted_child_comes_back_with_the_same_identity(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    arguments = ("--namespace", namespace, "--objects-seconds", "0")
    with operator(control_plane.kubeconfig, tmp_path / "operator.log", *arguments):
        kubectl.apply(DIGITS)
        before = until(lambda: all_made(api, namespace), "all children and pods")
        api.delete("Job", "digits-edge", namespace)
        after = until(
            lambda: (
                (found := all_made(api, namespace))
                and found["Job/digits-edge"]["metadata"]["uid"]
                != before["Job/digits-edge"]["metadata"]["uid"]
                and found
            ),
            "the Job to come back",
        )
        tokens = "Secret/digits-worker-tokens"
        assert after[tokens]["data"] == before[tokens]["data"]


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("crd")
def test_a_job_deleted_while_the_operator_is_down_takes_its_children_along(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    with operator(control_plane.kubeconfig, tmp_path / "operator.log", "--namespace", namespace):
        kubectl.apply(DIGITS)
        until(lambda: all_made(api, namespace), "all children and pods")
    api.delete(KIND, "digits", namespace)
    until(lambda: not children(api, namespace), "the garbage collector", seconds=COLLECTED_WITHIN)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("crd")
def test_a_restart_of_the_api_server_is_survived(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    if control_plane.control_plane is None:
        pytest.skip("the API server of a cluster of the user's is not restarted")
    first = {"name": "first", "namespace": namespace}
    log = tmp_path / "operator.log"
    with operator(control_plane.kubeconfig, log, "--namespace", namespace) as running:
        api.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": first, "spec": TWO_WORKERS})
        until(lambda: looks(running) > 0, "a look at the first job")
        control_plane.control_plane.restart(API_SERVER)
        api.delete(KIND, "first", namespace)
        until(lambda: not children(api, namespace), "the garbage collector", seconds=COLLECTED_WITHIN)
        kubectl.apply(DIGITS)
        until(lambda: all_made(api, namespace), "all children and pods", seconds=60)
        assert running.get("/healthz") == "ok\n"
        assert "Traceback" not in log.read_text()


@pytest.mark.usefixtures("crd")
def test_a_quota_that_refuses_the_jobs_is_told_in_status(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    quota: Object = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    api.create(quota)
    until(lambda: (api.get("ResourceQuota", "none", namespace).get("status") or {}).get("hard"), "the quota")
    with operator(control_plane.kubeconfig, tmp_path / "operator.log", "--namespace", namespace):
        kubectl.apply(DIGITS)
        until(lambda: "quota" in json.dumps(status(api, namespace)), "the quota in status")
        api.delete("ResourceQuota", "none", namespace)
        until(lambda: all_made(api, namespace), "all children once the quota is gone", seconds=60)


def ended(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run an operator that cannot start; return its exit code and the line that it leaves."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ENGRAM_OPERATOR_")}
    found = subprocess.run(
        [sys.executable, "-m", "engram_operator", "--health-port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environ},
        check=False,
    )
    (line,) = found.stderr.splitlines()
    return found.returncode, line


def test_no_kubeconfig_is_one_line(tmp_path: Path) -> None:
    code, line = ended("--kubeconfig", str(tmp_path / "none"))
    assert code == 1
    assert line.startswith(f"engram-operator: no kubeconfig at {tmp_path}/none: write --kubeconfig FILE")


def test_a_wrong_setting_is_one_line() -> None:
    code, line = ended(ENGRAM_OPERATOR_CONCURRENCY="many")
    assert code == 42
    assert line.startswith("engram-operator: ENGRAM_OPERATOR_CONCURRENCY: 'many' is not a whole number")


def test_a_cluster_that_is_down_is_one_line(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    code, line = ended("--kubeconfig", str(file))
    assert code == 1
    assert line.startswith("engram-operator: no cluster can be reached at http://127.0.0.1:1: ")


@contextmanager
def older_crd(api: Api, crd: str) -> Iterator[None]:
    """Put a CRD that knows no reports in place of ours while the block runs."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}"

    def change(part: dict[str, Any] | None) -> dict[str, Any]:
        found = api.get("CustomResourceDefinition", crd)
        (version,) = found["spec"]["versions"]
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
        before: dict[str, Any] = status.pop("report", {})
        if part is not None:
            status["report"] = part
        api.ask("PUT", path, found)
        return before

    report = change(None)
    try:
        yield
    finally:
        change(report)


def test_an_older_crd_is_one_line_with_the_command(control_plane: Cluster, api: Api, crd: str) -> None:
    def refused() -> bool:
        line = ended("--kubeconfig", str(control_plane.kubeconfig))[1]
        return "does not know status.report: run" in line

    with older_crd(api, crd):
        until(refused, "the operator to see the older CRD")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_older_crd_under_a_running_operator_ends_it(
    control_plane: Cluster, api: Api, crd: str, tmp_path: Path
) -> None:
    """It says so within a minute, and touches no job until it is started anew with the right CRD."""
    log = tmp_path / "operator.log"
    with operator(control_plane.kubeconfig, log) as process, older_crd(api, crd):
        assert process.process.wait(180) == 1
    said = log.read_text()
    assert "does not know status.report: run `engram crd | kubectl apply" in said
    assert "until then no job is touched" in said
    assert "Traceback" not in said
