"""`engram check` on a real control plane: real nodes objects, real admission, and nothing of it is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.kubectl.jobs import plugin

pytestmark = [pytest.mark.control, pytest.mark.usefixtures("crd")]

JOB = """\
apiVersion: engram.dev/v1alpha1
kind: FederatedIncrementalJob
metadata: {{name: digits}}
spec:
  {spec}
"""
PLAIN = "workers: [{name: edge, replicas: 2}]"


class Check:
    """`kubectl engram check` of a job file in the test's namespace."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.kubeconfig, self.namespace, self.folder = cluster.kubeconfig, namespace, folder

    def __call__(self, spec: str = PLAIN, kubeconfig: Path | None = None) -> tuple[int, str]:
        (self.folder / "job.yaml").write_text(JOB.format(spec=spec))
        options = ("--kubeconfig", kubeconfig or self.kubeconfig, "-n", self.namespace)
        done = plugin("check", self.folder / "job.yaml", *options)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def check(control_plane: Cluster, namespace: str, tmp_path: Path) -> Check:
    return Check(control_plane, namespace, tmp_path)


def lines(text: str, level: str) -> list[str]:
    """The lines of a level, without it."""
    return [" ".join(line.split()[1:]) for line in text.splitlines() if line.startswith(f"{level} ")]


def test_a_job_that_would_run_passes_and_leaves_nothing(
    check: Check, api: Api, namespace: str, fake_node: FakeNodes
) -> None:
    fake_node("fake-one")
    code, text = check()
    assert code == 0, text
    assert lines(text, "fail") == []
    fine = "\n".join(lines(text, "ok"))
    for said in (
        "crd federatedincrementaljobs.engram.dev knows every field",
        "nodes: edge fake-one of 1 for 2",
        "dry run: job the API server takes it",
        "dry run: objects the API server takes all 6",
        "dry run: pods admission takes a pod of aggregator, edge",
        "quota the namespace has none",
    ):
        assert said in fine, text
    assert "Nothing keeps the job from running." in text
    for kind in ("FederatedIncrementalJob", "Job", "Pod", "Secret", "Service"):
        assert api.list(kind, namespace) == [], kind


def test_a_gpu_that_nobody_has(check: Check, fake_node: FakeNodes) -> None:
    fake_node("fake-one")
    code, text = check("workers: [{name: edge, replicas: 2, gpus: {count: 1}}]")
    assert code == 1
    (failed,) = lines(text, "fail")
    assert failed.startswith("nodes: edge none of 1 takes a pod: 1 with less than nvidia.com/gpu 1 in all")


def test_a_quota_and_a_limit_range_speak_of_pods(
    check: Check, api: Api, namespace: str, fake_node: FakeNodes
) -> None:
    fake_node("fake-one")
    meta = {"name": "team", "namespace": namespace}
    hard = {"pods": "2", "requests.cpu": "8"}
    api.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})
    code, text = check()
    assert code == 1
    failed = "\n".join(lines(text, "fail"))
    assert "quota: team pods: 3 needed" in failed
    assert "dry run: pod of aggregator failed quota: team: must specify requests.cpu" in failed


def test_pod_security_refuses_a_host_path(
    check: Check, api: Api, namespace: str, fake_node: FakeNodes
) -> None:
    fake_node("fake-one")
    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    api.patch("Namespace", namespace, level)
    assert check()[0] == 0
    code, text = check(
        f"{PLAIN}\n  dataset: {{name: npz, volume: {{hostPath: {{path: /srv}}}}, path: a.npz}}"
    )
    assert code == 1
    failed = "\n".join(lines(text, "fail"))
    assert "the namespace enforces Pod Security restricted" in failed
    assert '"hostPath"' in text
    assert "apply the job with a PersistentVolumeClaim" in failed


def test_a_taken_name_and_a_port_out_of_range(
    check: Check, api: Api, namespace: str, fake_node: FakeNodes
) -> None:
    fake_node("fake-one")
    meta = {"name": "digits-spec", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}})
    code, text = check(f"{PLAIN}\n  aggregator: {{expose: {{type: NodePort, port: 80}}}}")
    assert code == 1
    failed = "\n".join(lines(text, "fail"))
    assert "dry run: ConfigMap digits-spec an object of that name is there already" in failed
    (warned,) = [line for line in lines(text, "warn") if line.startswith("port ")]
    assert warned.startswith("port 80 is outside 30000-32767")


def test_rights_that_lack_are_warnings_and_no_verdict(
    check: Check, control_plane: Cluster, api: Api, namespace: str, tmp_path: Path
) -> None:
    api.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest", "namespace": namespace}}
    )
    code, text = check(kubeconfig=control_plane.kubeconfig_of(namespace, "guest", tmp_path))
    assert code == 0, text
    assert lines(text, "fail") == []
    warned = "\n".join(lines(text, "warn"))
    assert "nodes not checked: nodes may not be read with these rights" in warned
    assert "dry run: job not checked: these rights do not make federatedincrementaljobs" in warned


def test_a_namespace_that_is_none_ends_the_check(check: Check) -> None:
    check.namespace = "nowhere"
    code, text = check()
    assert code == 1
    assert "there is no namespace nowhere" in text


def test_engram_itself_checks_too_and_a_wrong_file_is_said_first(
    control_plane: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(spec="workers: [{name: edge, replicas: 0}]"))
    command = [
        sys.executable,
        "-m",
        "engram",
        "check",
        "job.yaml",
        "--kubeconfig",
        str(control_plane.kubeconfig),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=90, check=False)
    assert done.returncode == 42
    assert done.stderr.startswith("engram: error: job.yaml: spec.workers[0].replicas: ")
