"""Each alert that needs time or breaks something is fired once by a real fault, by the chart's own rules.

Only times are shorter than in the chart (`lab.chart_rules` says which). The others are fired in test_run.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping

import pytest

from engram.spec.names import Phase, worker_name
from tests.cluster.api import Object
from tests.cluster.control_plane import API_SERVER
from tests.cluster.fixtures import Cluster
from tests.cluster.helm import Helm
from tests.observability.lab import PATIENCE, Fleet, Lab, edges, fleet_of, lab_in
from tests.observability.prometheus import SYSTEM

pytestmark = [pytest.mark.slow, pytest.mark.control, pytest.mark.process, pytest.mark.timeout(900)]

SETTLING = 3.0
"""Seconds after which an alert that was true before the first scrape has ended."""
SILENCE = 110.0
"""Seconds within which a watch that hears nothing is older than 65 s; the operator gives it up at 75 s."""


@pytest.fixture(scope="module")
def fleet(
    control_plane: Cluster, crd: str, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("lab")
    with lab_in(folder, control_plane, helm) as lab, fleet_of(lab, control_plane) as found:
        yield found


@pytest.fixture
def lab(fleet: Fleet) -> Lab:
    return fleet.lab


def fires(
    lab: Lab, alert: str, labels: Mapping[str, str], since: float = 0.0, seconds: float = PATIENCE
) -> None:
    """The alert fires after its fault, and did not before, from when Prometheus knew the operator on."""
    print(f"\n{alert}: {lab.until_fires(alert, labels, seconds):.1f} s after its fault")
    began = since or lab.ready + SETTLING
    assert [at for at in lab.firing(alert, labels) if began < at < lab.faults[alert]] == []


def test_a_killed_worker_that_the_quorum_needs_leaves_the_round_stuck(lab: Lab) -> None:
    job = lab.job("stuck", workers=[{"name": "edge", "replicas": 2}])
    pods = lab.pods(job)
    pods.aggregator()
    first, second = edges(2)
    pods.worker(first)
    lost = pods.worker(second)
    moves = 'engram_round{job="stuck"} >= 2 unless on (job) ALERTS{alertname="EngramRoundStuck"}'
    lab.prometheus.wait_for(moves, PATIENCE)  # while processes start, no round is closed either
    since = time.time()
    lab.strike("EngramRoundStuck", "EngramWorkerDisconnected")
    lost.kill()
    fires(lab, "EngramWorkerDisconnected", {"job": "stuck", "worker": worker_name("edge", 1)}, since)
    fires(lab, "EngramRoundStuck", {"job": "stuck"}, since)
    pods.close()


def webhook(namespace: str) -> Object:
    """Everything that is to be made in a namespace is to be allowed by somebody who does not answer."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    hook = {
        "name": "nobody.engram.example",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"nobody-{namespace}"},
        "webhooks": [hook],
    }


def test_a_webhook_that_does_not_answer_makes_reconciles_fail(fleet: Fleet, control_plane: Cluster) -> None:
    lab, hook = fleet.lab, webhook(fleet.lab.namespace)
    control_plane.kubectl.apply(json.dumps(hook))
    try:
        lab.strike("EngramOperatorErrors")
        for number in range(4):
            fleet.api.create(lab.job(f"refused-{number}"))
        fires(lab, "EngramOperatorErrors", {})
    finally:
        control_plane.kubectl.delete(hook["kind"], hook["metadata"]["name"])
    for number in range(4):
        fleet.until_phase(f"refused-{number}", Phase.RUNNING)


def test_an_operator_that_stands_still_is_down(fleet: Fleet) -> None:
    lab, pid = fleet.lab, fleet.operator.process.pid
    lab.strike("EngramOperatorDown")
    os.kill(pid, signal.SIGSTOP)
    try:
        fires(lab, "EngramOperatorDown", {"namespace": SYSTEM})
    finally:
        os.kill(pid, signal.SIGCONT)
    lab.prometheus.wait_for("engram_operator_last_event_age_seconds")


def test_an_api_server_that_says_nothing_is_silence(fleet: Fleet, control_plane: Cluster) -> None:
    """It is stopped, so its connections stay open: until the operator gives them up it cannot know."""
    if control_plane.control_plane is None:
        pytest.skip("the API server of a cluster of the user's is not stopped")
    lab = fleet.lab
    server = control_plane.control_plane.directory.processes().pid(API_SERVER)
    assert server is not None
    lab.prometheus.wait_for("engram_operator_last_event_age_seconds < 5")  # a bookmark comes every minute
    lab.strike("EngramOperatorStalled")
    os.kill(server, signal.SIGSTOP)
    try:
        took = lab.until_fires("EngramOperatorStalled", {"namespace": SYSTEM}, SILENCE)
        print(f"\nEngramOperatorStalled: {took:.1f} s after its fault")
        assert took > 55, "no sooner than the silence is longer than between two bookmarks"
    finally:
        os.kill(server, signal.SIGCONT)
