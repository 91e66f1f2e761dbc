"""deploy/ and the chart: what the API server takes, and an operator that works with exactly these rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram import __version__
from engram.spec.names import GROUP, KIND, PLURAL, Phase, Reason
from engram.spec.summary import FinalSummary
from engram_operator.preflight import RIGHTS
from engram_operator.settings import read_settings
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.audit import Request, requests
from tests.cluster.fake_kubelet import Ending, FakeKubelet, end_pod
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.cluster.helm import Helm
from tests.cluster.waiting import NotYet, until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY, CHART = ROOT / "deploy", ROOT / "charts" / "engram"
SYSTEM, OPERATOR = "engram-system", "engram-operator"
NODES = {("", "nodes", "get"), ("", "nodes", "list")}
"""Rights that a namespaced operator does without."""
LAPTOP_ROLE = "engram-laptop"
LAPTOP = ("", "services/proxy", "get")
"""What an operator outside the cluster needs in addition; the tests run it there."""
SELDOM = {
    (GROUP, PLURAL, "get"): "read after a conflict",
    ("batch", "jobs", "delete"): "workers' Jobs go half a minute after the end; the TTL here is shorter",
    ("batch", "jobs", "get"): "read where a Job exists that no watch has shown",
    ("", "secrets", "patch"): "written when a group grows",
    ("", "secrets", "delete"): "tokens of a key that was lost go before there is a new one",
    ("", "nodes", "get"): "read when a running pod is not ready",
    (
        "",
        "pods/log",
        "get",
    ): "read at the end of the report's pod; there are no kubelets here, tests/e2e has them",
}
"""Rights that no test here brings the operator to use, and when it does."""

APPLIED = {("", kind, "create") for kind in ("configmaps", "persistentvolumeclaims", "services")}
"""Server-side apply is a patch in the audit log, and needs the right to create what is not there yet."""

Right = tuple[str, str, str]


def documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def one(name: str, kind: str) -> Object:
    (found,) = (item for item in documents(name) if item["kind"] == kind)
    return found


def rights(role: Object) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


CLUSTER_RIGHTS = rights(one("rbac-cluster.yaml", "ClusterRole"))
NAMESPACED_RIGHTS = rights(one("namespaced/rbac.yaml", "Role"))


def test_the_roles_grant_what_the_operator_asks_for_and_nothing_else() -> None:
    asked = {(right.group, right.resource, verb) for right in RIGHTS for verb in right.verbs}
    assert asked == NAMESPACED_RIGHTS
    assert asked | NODES == CLUSTER_RIGHTS


def test_secrets_are_never_listed_and_nothing_is_granted_by_wildcard() -> None:
    assert not {("", "secrets", "list"), ("", "secrets", "watch")} & CLUSTER_RIGHTS
    assert not [right for right in CLUSTER_RIGHTS if "*" in right]


def test_people_get_their_rights_through_view_edit_and_admin_alone() -> None:
    roles = {item["metadata"]["name"]: item for item in documents("rbac-users.yaml")}
    aggregated = {
        name: {label for label in role["metadata"]["labels"] if "aggregate-to" in label}
        for name, role in roles.items()
    }
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert aggregated == {f"engram-{role}": {f"{prefix}{role}"} for role in ("view", "edit", "admin")}
    assert {verb for _, _, verb in rights(roles["engram-view"])} == {"get", "list", "watch"}
    assert rights(roles["engram-edit"]) > rights(roles["engram-view"])
    # What a namespace's admin grants an operator must be the admin's own: `edit` has the rest.
    ours = {right for right in NAMESPACED_RIGHTS if right[0] == GROUP}
    assert ours <= rights(roles["engram-edit"]) | rights(roles["engram-admin"])


def test_images_are_of_this_version_and_settings_exist() -> None:
    (container,) = one("operator.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    settings = read_settings([], environment)
    assert container["image"] == f"engram-operator:{__version__}"
    assert settings.image == f"engram-runtime:{__version__}"
    assert settings.namespaces == ()
    assert container["ports"][0]["containerPort"] == settings.health_port


@pytest.fixture(scope="module")
def system(control_plane: Cluster) -> Iterator[None]:
    """Apply deploy/operator.yaml as a user does; take it out again after the last test."""
    with FakeKubelet(control_plane.api):
        control_plane.kubectl.apply(DEPLOY / "operator.yaml", flags=("--server-side",))
        yield
        delete(control_plane, "operator.yaml")
        until(lambda: _gone(control_plane.api, "Namespace", SYSTEM), f"namespace {SYSTEM} to go", seconds=60)


@pytest.fixture
def roles(control_plane: Cluster, system: None) -> Iterator[None]:
    """Take out again what a test grants in the whole cluster."""
    yield
    delete(control_plane, "rbac-cluster.yaml", "rbac-users.yaml")
    control_plane.kubectl.delete("clusterrolebinding", LAPTOP_ROLE)
    control_plane.kubectl.delete("clusterrole", LAPTOP_ROLE)


def delete(cluster: Cluster, *names: str) -> None:
    """Delete what is in files of deploy/."""
    for name in names:
        cluster.kubectl.run("delete", "--ignore-not-found", "--wait=false", f"--filename={DEPLOY / name}")


@pytest.mark.control
@pytest.mark.usefixtures("system")
def test_the_operators_pod_passes_restricted(api: Api) -> None:
    assert api.get("Namespace", SYSTEM)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == (
        "restricted"
    )
    template = one("operator.yaml", "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": SYSTEM}}
    api.create(pod | {"spec": template["spec"]}, dry_run=True)
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(ApiError, match="restricted"):
        api.create(pod | {"spec": template["spec"]}, dry_run=True)


@pytest.mark.control
@pytest.mark.usefixtures("roles", "crd")
@pytest.mark.parametrize(
    ("role", "verb", "allowed"), [("view", "create", False), ("edit", "create", True), ("view", "list", True)]
)
def test_view_and_edit_know_jobs(
    control_plane: Cluster, namespace: str, role: str, verb: str, allowed: bool
) -> None:
    kubectl = control_plane.kubectl.inside(namespace)
    kubectl.apply(DEPLOY / "rbac-users.yaml", flags=("--server-side",))
    kubectl.run("create", "rolebinding", "anna", f"--clusterrole={role}", "--user=anna")

    def may(verb: str) -> bool:
        asked = {"namespace": namespace, "group": GROUP, "resource": PLURAL, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": "anna", "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        found: bool = control_plane.api.ask("POST", path, review).body["status"]["allowed"]
        return found

    until(lambda: may("get"), f"{role} to see jobs")  # aggregation takes a moment
    assert may(verb) is allowed


@pytest.mark.control
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("roles", "crd")
@pytest.mark.parametrize("mode", ["cluster", "namespaced"])
@pytest.mark.parametrize("source", ["manifests", "chart"])
def test_a_job_from_quota_to_removal_with_exactly_these_rights(
    control_plane: Cluster, namespace: str, fake_node: FakeNodes, tmp_path: Path, source: str, mode: str
) -> None:
    api, watched = control_plane.api, [] if mode == "cluster" else [namespace]
    log, since = control_plane.audit_log, datetime.now(UTC)
    fake_node("fake-cloud")
    api.create(volume(namespace))
    api.create(quota(namespace))
    grant = grant_by_manifests if source == "manifests" else grant_by_chart
    with grant(control_plane, namespace, watched) as (system, account):
        allow_proxy(control_plane, system, account, *watched)
        kubeconfig = control_plane.kubeconfig_of(system, account, tmp_path)
        with operator(kubeconfig, tmp_path / "operator.log", f"--namespaces={','.join(watched)}"):
            live_through(api, namespace, expose="NodePort" if mode == "cluster" else "ClusterIP")

    allowed = (CLUSTER_RIGHTS if mode == "cluster" else NAMESPACED_RIGHTS) | {LAPTOP}
    asked = list(requests(log, user=f"system:serviceaccount:{system}:{account}", since=since))
    refused = [right_of(item) for item in asked if item.code == 403 and item.resource != LAPTOP[1]]
    used = {right_of(item) for item in asked if item.resource}
    used -= {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}  # everybody may
    if mode == "cluster":
        assert refused == []
    else:  # it asks once whether nodes may be read, and remembers the answer for minutes
        assert len(refused) <= 1
        assert set(refused) <= NODES
        used -= NODES
    assert used - allowed == set()
    assert allowed - used - set(SELDOM) - APPLIED - {LAPTOP} == set()


@contextmanager
def grant_by_manifests(cluster: Cluster, namespace: str, watched: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Apply the roles of deploy/; yield namespace and name of the service account that has them."""
    files = DEPLOY / "namespaced" if watched else DEPLOY / "rbac-cluster.yaml"
    cluster.kubectl.inside(namespace).run("apply", "--server-side", f"--filename={files}")
    yield SYSTEM, OPERATOR


@contextmanager
def grant_by_chart(cluster: Cluster, namespace: str, watched: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Install the chart in `namespace`; yield namespace and name of its service account."""
    helm = Helm(CHART, cluster.kubeconfig, namespace)
    others = {"crds": {"enabled": False}, "userRoles": {"create": False}}
    helm.install("lab", values={"watchNamespaces": watched, **others})
    try:
        yield namespace, "lab-operator"
    finally:
        helm.uninstall("lab")


def live_through(api: Api, namespace: str, *, expose: str) -> None:
    """Apply a job that a quota holds up, let it run, suspend, resume, succeed and be removed by its TTL."""
    name = "digits"
    api.create(job(namespace, name, expose))
    until(lambda: reason_shown(api, namespace, name, Reason.QUOTA_EXCEEDED), "the quota to be explained")
    api.delete("ResourceQuota", "none", namespace)
    until_phase(api, namespace, name, Phase.RUNNING)
    api.patch(KIND, name, {"spec": {"suspend": True}}, namespace=namespace)
    until_phase(api, namespace, name, Phase.SUSPENDED)
    api.patch(KIND, name, {"spec": {"suspend": False}}, namespace=namespace)
    until_phase(api, namespace, name, Phase.RUNNING)
    (pod,) = (
        pod
        for pod in api.list("Pod", namespace, labels=f"{GROUP}/role=aggregator")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    )
    end_pod(api, pod, Ending(0, FinalSummary(outcome="complete").encode()))
    until(lambda: _gone(api, KIND, name, namespace), "the job to be removed by its TTL", seconds=60)


def job(namespace: str, name: str, expose: str) -> Object:
    text = f"""
        apiVersion: engram.dev/v1alpha1
        kind: FederatedIncrementalJob
        metadata: {{name: {name}, namespace: {namespace}}}
        spec:
          dataset: {{name: digits}}
          aggregator:
            placement: any
            expose: {{type: {expose}}}
            checkpoint: {{size: 1Mi}}
          workers: [{{name: edge, replicas: 2}}]
          runPolicy: {{ttlSecondsAfterFinished: 3}}
    """
    found: Object = yaml.safe_load(textwrap.dedent(text))
    return found


def volume(namespace: str) -> Object:
    """Return a volume for the claim of the job's checkpoint: nothing else here makes one."""
    claim = {"name": "digits-checkpoint", "namespace": namespace}
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/nonexistent"},
        "claimRef": claim,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"engram-{namespace}"},
        "spec": spec,
    }


def quota(namespace: str) -> Object:
    """Return a quota that lets no pod in."""
    meta = {"name": "none", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}}


def allow_proxy(cluster: Cluster, system: str, account: str, namespace: str = "") -> None:
    """Grant what an operator outside the cluster needs in addition; no namespace: in the whole cluster."""
    kind = "role" if namespace else "clusterrole"
    kubectl = cluster.kubectl.inside(namespace or system)
    name = LAPTOP_ROLE
    kubectl.apply(kubectl.run("create", kind, name, "--verb=get", "--resource=services/proxy", *DRY_RUN))
    subject = f"--serviceaccount={system}:{account}"
    kubectl.apply(kubectl.run("create", f"{kind}binding", name, f"--{kind}={name}", subject, *DRY_RUN))


DRY_RUN = ("--dry-run=client", "--output=yaml")


@contextmanager
def operator(kubeconfig: Path, log: Path, *options: str) -> Iterator[None]:
    """Run the operator as a process; on leaving it must end orderly."""
    command = [sys.executable, "-m", "engram_operator", f"--kubeconfig={kubeconfig}", "--health-port=0"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ENGRAM_OPERATOR_")}
    with log.open("w") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=environment)
    try:
        yield
    except BaseException as problem:
        problem.add_note(log.read_text()[-4000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    assert code == 0, log.read_text()[-4000:]


def right_of(request: Request) -> Right:
    """Return the right that a request needs. An answer of services/proxy is the pod's, whatever its code."""
    parts = request.path.split("/")
    return ("" if parts[1] == "api" else parts[2], request.resource, request.verb)


def status_of(api: Api, namespace: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = api.get(KIND, name, namespace).get("status") or {}
    return found


def reason_shown(api: Api, namespace: str, name: str, reason: Reason) -> bool:
    status = status_of(api, namespace, name)
    shown = [(item["type"], item["reason"]) for item in status.get("conditions") or ()]
    if reason not in [text for _, text in shown]:
        raise NotYet(f"{status.get('phase')}: {shown}")
    return True


def until_phase(api: Api, namespace: str, name: str, phase: Phase) -> None:
    def there() -> bool:
        status = status_of(api, namespace, name)
        if status.get("phase") != phase:
            raise NotYet(f"{status.get('phase')}: {status.get('reason')}: {status.get('message')}")
        return True

    until(there, f"{name} to be {phase}", seconds=60)


def _gone(api: Api, kind: str, name: str, namespace: str = "") -> bool:
    try:
        api.get(kind, name, namespace)
    except ApiError as error:
        if error.code == 404:
            return True
        raise
    return False
