"""`kubectl engram` as it is typed on a laptop, about pods on real nodes, of which one breaks in round 3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engram.spec.names import Phase, Reason
from tests.cluster.fixtures import Cluster
from tests.e2e.jobs import Jobs, build_job
from tests.e2e.test_jobs import small

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

BREAKS = """
from engram.learning.local_learner import Worker
from engram.__main__ import main
import sys

train = Worker.train

def broken(self, order, progress):
    if order.round == 3:
        raise ZeroDivisionError("the sensor of shop 7 divides by nothing")
    return train(self, order, progress)

Worker.train = broken
sys.argv = ["engram", "worker"]
main()
"""
WORDS = "ZeroDivisionError: the sensor of shop 7 divides by nothing"


class Laptop:
    """kubectl finds the plug-in on the path, as it finds any."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._kubectl = cluster.kubectl.program
        self._where = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace)

    def __call__(self, *arguments: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Type `kubectl engram ARGUMENTS`."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [str(self._kubectl), "engram", *arguments, *self._where],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def test_a_job_from_the_check_before_it_to_its_report(
    control_plane: Cluster, jobs: Jobs, tmp_path: Path
) -> None:
    engram = Laptop(control_plane, jobs.namespace)
    container = {"name": "main", "command": ["python", "-c", BREAKS], "args": []}
    groups = [
        {"name": "edge", "replicas": 1},
        {"name": "odd", "replicas": 1, "podTemplate": {"spec": {"containers": [container]}}},
    ]
    spec = small(
        workers=groups,
        aggregation={"quorum": 1, "roundDeadlineSeconds": 5},
        runPolicy={"backoffLimit": 0},
    )
    job = build_job("digits", spec)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))

    checked = engram("check", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ok    operator" in checked.stdout
    assert "ok    dry run: pods" in checked.stdout
    assert "0 fail" in checked.stdout.splitlines()[-1]

    jobs.apply(job)
    waited = engram("wait", "digits", "--for", "ReportReady", "--timeout", "5m", seconds=330)
    assert waited.returncode == 0, waited.stdout + waited.stderr
    assert waited.stdout.splitlines()[-1] == "digits: ReportReady"

    shown = engram("get", "digits").stdout
    assert shown.startswith(f"digits  {Phase.SUCCEEDED} ")
    assert "100%\n  task 2/2  round 8/8  accuracy " in shown
    told = engram("describe", "digits").stdout
    assert WORDS in told
    assert told.index("trainworker-odd-0") < told.index("trainworker-edge-0"), "who is not fine comes first"
    assert f"{Reason.FINISHED}" in told
    assert "report      ConfigMap digits-report" in told

    said = engram("logs", "digits", "odd-0").stdout
    assert said.startswith("==> trainworker-odd-0 <==\n")
    sent = said.partition("--> over the training connection: ")[2]
    assert sent.startswith("exit code 1: ")
    assert WORDS in sent
    assert "line 10, in broken" in sent, "the traceback"

    out = tmp_path / "report"
    done = engram("report", "digits", "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "report.html").is_file()
