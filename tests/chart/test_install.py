"""Releases on a real control plane: install, upgrade and rollback under a job, uninstall; and who may."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engram import __version__
from engram.spec.names import CRD_NAME, KIND
from tests.chart.admins import admin_of, until_may_grant
from tests.chart.conftest import CHART
from tests.chart.objects import container_of, names, one
from tests.chart.prometheus_operator import prometheus_operator_crds
from tests.cluster.api import Api, ApiError
from tests.cluster.fixtures import CRDS, Cluster, FakeNodes, until_established
from tests.cluster.helm import Helm, HelmError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until
from tests.control.operator_process import OperatorProcess, operator
from tests.control.test_operator_process import DIGITS, all_made, children, looks

pytestmark = pytest.mark.control

DEPLOY = CHART.parents[1] / "deploy"
SYSTEM = "engram-system"
LARGEST_RELEASE = 200_000
"""Bytes of the Secret in which Helm keeps a release; etcd takes 1.5 MB, and each revision has one."""
ENFORCE = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
NOTHING_OF_THE_CLUSTER = {"crds": {"enabled": False}, "userRoles": {"create": False}}


def remove_crd(cluster: Cluster) -> None:
    cluster.kubectl.run("delete", "crd", CRD_NAME, "--ignore-not-found", "--wait")


@pytest.fixture
def bare(control_plane: Cluster) -> Iterator[None]:
    """A cluster without the CRD, which the chart is to bring; afterwards it has it, as others expect."""
    if control_plane.control_plane is None:
        pytest.skip("the CRD of a cluster of the user's, and all jobs with it, are not ours to delete")
    remove_crd(control_plane)
    yield
    remove_crd(control_plane)
    control_plane.kubectl.apply(CRDS)
    until_established(control_plane.api, CRD_NAME)


def installed(kubectl: Kubectl, release: str) -> Mapping[str, Any]:
    """The settings in the Deployment of a release, by the name of their variable."""
    deployment = kubectl.get("deployment", f"{release}-operator")
    environment = container_of([deployment])["env"]
    return {item["name"].removeprefix("ENGRAM_OPERATOR_"): item.get("value", "") for item in environment}


def state_of(api: Api, namespace: str) -> dict[str, tuple[str, int | None, bool]]:
    """The job and all that it has: identity, generation of what is wanted, whether it is being deleted."""
    found = {**children(api, namespace), "job": api.get(KIND, "digits", namespace)}
    return {
        key: (
            item["metadata"]["uid"],
            item["metadata"].get("generation"),
            "deletionTimestamp" in item["metadata"],
        )
        for key, item in found.items()
    }


def options_of(kubectl: Kubectl) -> list[str]:
    """The release's settings as options of a process that stands for the operator's pod."""
    settings = installed(kubectl, "engram")
    return [
        f"--{name.lower().replace('_', '-')}={value}"
        for name, value in settings.items()
        if name != "HEALTH_PORT"
    ]


def look_again(process: OperatorProcess) -> None:
    """Wait until a fresh operator has seen to the job."""
    until(lambda: looks(process) > 0, "the operator to look at the job")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bare", "fake_kubelet")
def test_install_upgrade_rollback_and_uninstall_under_a_running_job(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, fake_node: FakeNodes, tmp_path: Path
) -> None:
    helm = Helm(CHART, control_plane.kubeconfig, namespace)
    fake_node("fake-cloud", capacity={"cpu": "64", "memory": "64Gi"})
    api.patch("Namespace", namespace, ENFORCE)

    values = {"watchNamespaces": [namespace]}
    # Waits for the operator's pod, in `restricted`.
    said = helm.install("engram", "--wait", "--timeout=60s", values=values)
    assert f"kubectl -n {namespace} rollout status deployment/engram-operator" in said
    until_established(api, CRD_NAME)
    (release,) = (item for item in api.list("Secret", namespace) if item["type"] == "helm.sh/release.v1")
    assert len(json.dumps(release)) < LARGEST_RELEASE

    arguments = (control_plane.kubeconfig, tmp_path / "operator.log")
    with operator(*arguments, *options_of(kubectl)):
        kubectl.apply(DIGITS)
        until(lambda: all_made(api, namespace), "all children and pods", seconds=30)
    before = state_of(api, namespace)

    newer = {**values, "jobs": {"image": {"tag": "0.2.0"}}, "operator": {"logLevel": "debug"}}
    helm.install("engram", "--wait", "--timeout=60s", values=newer)
    assert installed(kubectl, "engram")["IMAGE"] == "engram-runtime:0.2.0"
    with operator(*arguments, *options_of(kubectl)) as process:
        look_again(process)
        assert state_of(api, namespace) == before

    helm.run("rollback", "engram", "1", "--wait", "--timeout=60s")
    assert installed(kubectl, "engram")["IMAGE"] == f"engram-runtime:{__version__}"
    with operator(*arguments, *options_of(kubectl)) as process:
        look_again(process)
        assert state_of(api, namespace) == before

    helm.uninstall("engram")
    assert names(kubectl.list("deployment,serviceaccount", "app.kubernetes.io/part-of=engram")) == {}
    ours = "app.kubernetes.io/instance=engram,app.kubernetes.io/managed-by=Helm"
    assert names(kubectl.list("clusterrole,clusterrolebinding", ours)) == {}
    assert api.get("CustomResourceDefinition", CRD_NAME)["metadata"].get("deletionTimestamp") is None
    assert state_of(api, namespace) == before

    helm.install("engram", values=values)  # and takes the CRD over that it left behind
    assert state_of(api, namespace) == before
    helm.uninstall("engram")


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("bare")
def test_what_was_deployed_another_way_is_taken_over_only_when_told(control_plane: Cluster) -> None:
    helm, kubectl = Helm(CHART, control_plane.kubeconfig, SYSTEM), control_plane.kubectl.inside(SYSTEM)
    control_plane.kubectl.apply(CRDS, DEPLOY, flags=("--server-side",))  # as `make deploy` does
    try:
        with pytest.raises(HelmError, match="exists and cannot be imported"):
            helm.install("engram")
        helm.uninstall("engram")
        before = kubectl.get("deployment", "engram-operator")["metadata"]["uid"]
        helm.install("engram", "--take-ownership")
        assert kubectl.get("deployment", "engram-operator")["metadata"]["uid"] == before
        helm.uninstall("engram")
    finally:
        control_plane.kubectl.run("delete", "--ignore-not-found", f"--filename={DEPLOY}", seconds=120)


@pytest.fixture
def anna(control_plane: Cluster, namespace: str) -> Path:
    """The kubeconfig of a user who is the admin of one namespace, and nothing outside."""
    return admin_of(control_plane, namespace)


@pytest.fixture
def user_roles(control_plane: Cluster) -> Iterator[None]:
    """What the administrator of the cluster installs beside the CRD."""
    roles = DEPLOY / "rbac-users.yaml"
    control_plane.kubectl.apply(roles, flags=("--server-side",))
    yield
    control_plane.kubectl.run("delete", "--ignore-not-found", f"--filename={roles}")


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("crd", "user_roles", "fake_kubelet")
def test_the_admin_of_a_namespace_installs_an_operator_for_it(
    api: Api, kubectl: Kubectl, namespace: str, fake_node: FakeNodes, anna: Path
) -> None:
    helm = Helm(CHART, anna, namespace)
    fake_node("fake-cloud")
    until_may_grant(api, namespace)
    values = {"watchNamespaces": [namespace], **NOTHING_OF_THE_CLUSTER}
    helm.install("lab", "--wait", "--timeout=60s", values=values)
    made = names(helm.template("lab", values=values))
    assert made == {
        kind: ["lab-operator"] for kind in ("ServiceAccount", "Role", "RoleBinding", "Deployment")
    }
    helm.uninstall("lab")
    assert kubectl.list("deployment,role,rolebinding,serviceaccount", "app.kubernetes.io/instance=lab") == []

    with pytest.raises(HelmError, match="cluster scope"):
        helm.install("lab", values=NOTHING_OF_THE_CLUSTER)
    with pytest.raises(HelmError, match="cluster scope"):
        helm.install("lab", values={"watchNamespaces": [namespace]})


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("crd")
@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_with_everything_on_the_api_server_takes_every_field(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, kind: str
) -> None:
    """Against the schemas of the Prometheus Operator, too; a misspelt field would be refused."""
    files = prometheus_operator_crds()
    kubectl.apply(*files.values(), flags=("--server-side",))
    for name in files:
        until_established(api, name)
    values = {
        "watchNamespaces": [namespace],
        "networkPolicy": {"enabled": True},
        "jobs": {"networkPolicy": True, "hostPaths": {"restrict": True, "allowed": ["/data"]}},
        "prometheus": {"monitor": {"enabled": True, "kind": kind}, "rules": {"enabled": True}},
        "grafana": {"dashboards": {"enabled": True}},
    }
    helm = Helm(CHART, control_plane.kubeconfig, namespace)
    text = helm.text("lab", values=values)
    try:
        flags = ("--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server")
        said = kubectl.apply(text, flags=flags)
        assert len(said.splitlines()) == len(helm.template("lab", values=values))
        helm.install("lab", values={**values, "crds": {"enabled": False}})
        (release,) = (item for item in api.list("Secret", namespace) if item["type"] == "helm.sh/release.v1")
        assert len(json.dumps(release)) < LARGEST_RELEASE
        rule = kubectl.get("prometheusrule", "lab")
        assert rule["spec"] == one(helm.template("lab", values=values), "PrometheusRule")["spec"]
    finally:
        helm.uninstall("lab")
        kubectl.run("delete", "--wait", *(f"--filename={file}" for file in files.values()))


@pytest.mark.usefixtures("crd")
def test_where_the_crd_is_missing_notes_say_who_installs_it(
    control_plane: Cluster, api: Api, namespace: str
) -> None:
    helm = Helm(CHART, control_plane.kubeconfig, namespace)
    said = helm.install("lab", values={"watchNamespaces": [namespace], **NOTHING_OF_THE_CLUSTER})
    helm.uninstall("lab")
    assert f"runs FederatedIncrementalJobs in the namespaces {namespace}." in said
    assert "engram crd | kubectl apply --server-side -f -" in said
    assert "--set prometheus.monitor.enabled=true" in said
    assert "{{" not in said
    with pytest.raises(ApiError):
        api.get("ServiceAccount", "lab-operator", namespace)
