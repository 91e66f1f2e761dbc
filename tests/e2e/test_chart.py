"""The chart on real nodes: what a platform team types, from an empty cluster to a report, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.spec.names import CRD_NAME, Phase
from tests.chart.admins import admin_of, until_may_grant
from tests.chart.conftest import CHART
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.cluster.helm import Helm
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.e2e.examples import ENFORCE, EXAMPLES
from tests.e2e.jobs import OPERATOR, SYSTEM, Jobs, build_job
from tests.e2e.test_jobs import small

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

ROLLOUT = ("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")


@pytest.fixture
def alone(control_plane: Cluster, operator: str) -> Iterator[None]:
    """No other operator than the chart's: that of `make deploy` rests."""
    system = control_plane.kubectl.inside(SYSTEM)
    system.run("scale", f"deployment/{OPERATOR}", "--replicas=0")
    system.run("wait", "pod", "--all", "--for=delete", "--timeout=90s", seconds=100)
    yield
    system.run("scale", f"deployment/{OPERATOR}", "--replicas=1")
    system.run(*ROLLOUT, seconds=130)


@pytest.fixture
def helm(control_plane: Cluster, api: Api, namespace: str) -> Iterator[Helm]:
    """Helm as the admin of the test's namespace types it, in which `restricted` is enforced.

    She has no right outside. The release goes with the test.
    """
    api.patch("Namespace", namespace, {"metadata": {"labels": {ENFORCE: "restricted"}}})
    made = Helm(CHART, admin_of(control_plane, namespace), namespace)
    until_may_grant(api, namespace)
    yield made
    made.uninstall("engram")


@pytest.mark.usefixtures("alone")
def test_from_helm_install_to_the_report_and_an_upgrade_under_a_running_job(
    helm: Helm, api: Api, kubectl: Kubectl, namespace: str
) -> None:
    jobs = Jobs(api, kubectl)
    # CRD and user roles are the cluster's, which she may not touch.
    values = {"watchNamespaces": [namespace], "crds": {"enabled": False}, "userRoles": {"create": False}}
    helm.install("engram", "--wait", "--timeout=120s", values=values)

    jobs.apply(EXAMPLES / "01-digits.yaml")
    kubectl.wait("fij/digits", "condition=ReportReady", seconds=300)
    assert {"report.html", "report.json"} <= {Path(name).name for name in jobs.report("digits")}

    jobs.apply(build_job("long", small(rounds=400)))
    jobs.in_round("long", 2)
    before = uids(jobs)
    (first,) = operator_pods(kubectl)
    helm.install("engram", "--wait", "--timeout=120s", values={**values, "operator": {"logLevel": "debug"}})
    assert operator_pods(kubectl) != [first]
    jobs.in_round("long", jobs.status("long")["progress"]["round"] + 2)
    helm.run("rollback", "engram", "1", "--wait", "--timeout=120s", seconds=130)
    jobs.in_round("long", jobs.status("long")["progress"]["round"] + 2)
    assert uids(jobs) == before

    helm.uninstall("engram")
    assert api.get("CustomResourceDefinition", CRD_NAME)
    assert jobs.status("digits")["phase"] == Phase.SUCCEEDED
    assert uids(jobs) == before, "a run needs no operator to go on"
    with pytest.raises(KubectlError, match="not found"):
        kubectl.get("deployment", OPERATOR)


def uids(jobs: Jobs) -> dict[str, str]:
    """Return the identity of each pod of the long run."""
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in jobs.pods("long")}


def operator_pods(kubectl: Kubectl) -> list[str]:
    """Return the names of the release's pods that are not on their way out."""
    pods = kubectl.get("pods", "--selector=app.kubernetes.io/instance=engram")["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
