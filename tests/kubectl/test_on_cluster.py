"""The plug-in on a real control plane: real rights, watches and TLS; statuses are written by the test."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from engram.spec.compact import CompactReport
from engram.spec.names import API_VERSION, KIND, Phase
from engram_operator.model import Object
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.cluster.pki import Authority
from tests.kubectl.jobs import REPORT, ended, plugin, running, stored_report

pytestmark = [pytest.mark.control, pytest.mark.usefixtures("crd")]


class Typed:
    """A command of the plug-in that goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        """Return the next line that it writes; empty at its end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def end(self) -> tuple[int, str]:
        """Return its exit code and what it wrote to stderr."""
        _, errors = self._process.communicate(timeout=60)
        return self._process.returncode, errors


@contextmanager
def typed(*arguments: str | Path) -> Iterator[Typed]:
    """Run the plug-in while the block runs."""
    command = [sys.executable, "-m", "engram_kubectl", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Typed(process)
        finally:
            process.kill()


@pytest.fixture
def job(api: Api, namespace: str) -> Object:
    """A job that nobody runs."""
    spec = {"workers": [{"name": "edge", "replicas": 2}]}
    meta = {"name": "digits", "namespace": namespace}
    return api.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec})


def say(api: Api, namespace: str, job: Object) -> None:
    """Write a job's status as the operator does."""
    api.patch(KIND, "digits", {"status": job["status"]}, namespace=namespace, part="status")


def test_get_and_describe_show_what_the_operator_has_said(
    control_plane: Cluster, api: Api, namespace: str, job: Object
) -> None:
    options = ("--kubeconfig", control_plane.kubeconfig, "-n", namespace)
    done = plugin("get", "digits", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Unseen" in done.stdout
    say(api, namespace, running())
    shown = plugin("get", f"{namespace}/digits", *options[:2]).stdout
    assert "48%" in shown
    assert "task 3/5  round 13/25" in shown
    assert "digits" in plugin("get", "-A", *options[:2]).stdout
    meta = {"name": "digits.1", "namespace": namespace}
    involved = {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": "digits"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": meta,
        "involvedObject": {**involved, "uid": job["metadata"]["uid"]},
        "type": "Warning",
        "reason": "WorkerDisconnected",
        "message": "trainworker-edge-1 is silent since a minute",
        "lastTimestamp": "2026-01-02T11:59:00Z",
    }
    api.create(event)
    api.create(
        {
            **event,
            "metadata": {**meta, "name": "other.1"},
            "involvedObject": {**involved, "uid": "u"},
            "message": "not ours",
        }
    )
    text = plugin("describe", "digits", *options).stdout
    assert "is silent since a minute" in text
    assert "not ours" not in text
    assert text.index("trainworker-edge-1 ") < text.index("trainworker-edge-0 ")


def test_wait_ends_when_the_job_does_and_says_how(
    control_plane: Cluster, api: Api, namespace: str, job: Object
) -> None:
    options = ("--kubeconfig", control_plane.kubeconfig, "-n", namespace)
    late = plugin("wait", "digits", "--timeout", "1s", *options)
    assert (late.returncode, late.stderr) == (124, "digits: not Complete within 1 s: Unseen\n")
    with typed("wait", "digits", *options) as waiting:
        assert waiting.line() == "digits: Unseen"
        say(api, namespace, running())
        assert waiting.line().startswith("digits: Running  48%  task 3/5  round 13/25")
        say(api, namespace, ended())
        assert waiting.line().startswith("digits: Succeeded  100%")
        assert waiting.line() == "digits: Complete"
        assert waiting.end() == (0, "")


def test_a_failed_job_ends_a_wait_with_its_reason(
    control_plane: Cluster, api: Api, namespace: str, job: Object
) -> None:
    say(api, namespace, ended(Phase.FAILED))
    done = plugin("wait", "digits", "--kubeconfig", control_plane.kubeconfig, "-n", namespace)
    assert done.returncode == 1
    assert done.stderr == "digits: will not be Complete: RunFailed: All tasks are done.\n"


def test_a_job_that_goes_ends_a_wait(control_plane: Cluster, api: Api, namespace: str, job: Object) -> None:
    options = ("--kubeconfig", control_plane.kubeconfig, "-n", namespace)
    with typed("get", "digits", "--watch", *options) as watching:
        assert watching.line() == "digits: Unseen"
        api.delete(KIND, "digits", namespace)
        code, errors = watching.end()
    assert code == 42
    assert errors == (f"engram: error: job digits was deleted from namespace {namespace}: apply it again\n")


def test_a_report_is_fetched_by_engram_itself(
    control_plane: Cluster, api: Api, namespace: str, job: Object, tmp_path: Path
) -> None:
    say(
        api,
        namespace,
        ended(
            ready=stored_report(),
            report={"configMap": "digits-report", "digest": CompactReport(REPORT).digest},
        ),
    )
    meta = {"name": "digits-report", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": REPORT})
    command = [sys.executable, "-m", "engram", "report", "--cluster", f"{namespace}/digits"]
    command += ["--kubeconfig", str(control_plane.kubeconfig), "--out", "fetched"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("report: fetched/report.html\n")
    assert {path.name: path.read_text() for path in (tmp_path / "fetched").iterdir()} == REPORT


def test_rights_that_are_missing_are_named(
    control_plane: Cluster, api: Api, namespace: str, job: Object, tmp_path: Path
) -> None:
    api.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest", "namespace": namespace}}
    )
    guest = control_plane.kubeconfig_of(namespace, "guest", tmp_path)
    done = plugin("describe", "digits", "--kubeconfig", guest)
    assert done.returncode == 42
    assert f'User "system:serviceaccount:{namespace}:guest" cannot get resource' in done.stderr
    assert done.stderr.endswith(
        "ask for the role engram-view, or engram-edit to run jobs, in that namespace\n"
    )


def test_a_cluster_with_another_ca_is_not_trusted(control_plane: Cluster, tmp_path: Path) -> None:
    content = yaml.safe_load(control_plane.kubeconfig.read_text())
    (tmp_path / "pki").mkdir()
    other = Authority(tmp_path / "pki").certificate.read_bytes()
    cluster = content["clusters"][0]["cluster"]
    cluster.pop("certificate-authority", None)
    cluster["certificate-authority-data"] = base64.b64encode(other).decode()
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(content))
    done = plugin("get", "--kubeconfig", file)
    assert done.returncode == 42
    assert done.stderr.startswith("engram: error: TLS with the cluster at https://127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_logs_without_pods_say_where_the_rest_is(
    control_plane: Cluster, api: Api, namespace: str, job: Object
) -> None:
    options = ("--kubeconfig", control_plane.kubeconfig, "-n", namespace)
    assert "has no pods of workers" in plugin("logs", "digits", *options).stderr
    say(api, namespace, running())
    done = plugin("logs", "digits", "edge-1", *options)
    assert done.returncode == 0
    assert done.stdout == (
        "==> trainworker-edge-1 <==\nits pod is gone, and its log with it\n"
        "--> status: WorkerDisconnected: no sign of life since 11:58\n"
    )
