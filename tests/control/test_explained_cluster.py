"""What a namespace, an administrator or an older CRD forbids: what a user reads, and what mends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engram.spec.names import GROUP, Child, Phase, Reason
from engram_operator.preflight import INSTALL, RIGHTS, RIGHTS_OUTSIDE, Right
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import KubectlError
from tests.cluster.waiting import NotYet, until
from tests.control.explaining import User, World, job_of, new_namespace, serving
from tests.control.operator_process import operator

pytestmark = [pytest.mark.control, pytest.mark.timeout(240)]


def quota(namespace: str, pods: int) -> Object:
    """Return a quota."""
    metadata = {"name": "small", "namespace": namespace}
    hard = {"pods": str(pods)}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


@pytest.mark.usefixtures("crd", "cloud")
def test_a_quota(control_plane: Cluster, api: Api, namespace: str, tmp_path: Path) -> None:
    api.create(quota(namespace, 1))
    until(lambda: (api.get("ResourceQuota", "small", namespace).get("status") or {}).get("hard"), "the quota")
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits"))

        words = ("exceeded quota: small", "limited: pods=1", "have the ResourceQuota raised")
        user.until_told("digits", Reason.QUOTA_EXCEEDED, *words, phase=Phase.STARTING)

        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.QUOTA_EXCEEDED]
        api.patch("ResourceQuota", "small", {"spec": {"hard": {"pods": "9"}}}, namespace=namespace)
        user.until_phase("digits", Phase.RUNNING, seconds=90)


@pytest.mark.usefixtures("crd", "cloud")
def test_host_paths_where_restricted_is_enforced(control_plane: Cluster, api: Api, tmp_path: Path) -> None:
    namespace = new_namespace(api, enforce="restricted")
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits", {"dataset": {"volume": {"hostPath": {"path": "/srv/photos"}}}}))

        words = (
            "enforces Pod Security restricted:latest",
            'volume "data" uses restricted volume type "hostPath"',
            "a PersistentVolumeClaim whose `local` PersistentVolume lies on the node",
        )
        user.until_told("digits", Reason.POD_SECURITY_VIOLATION, *words, phase=Phase.STARTING)

        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.POD_SECURITY_VIOLATION]
        change = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        api.patch("Namespace", namespace, change)
        user.until_phase("digits", Phase.RUNNING, seconds=90)
    api.delete("Namespace", namespace)


@pytest.mark.usefixtures("crd", "cloud")
def test_a_namespace_that_goes(control_plane: Cluster, api: Api, tmp_path: Path) -> None:
    own = control_plane.control_plane
    if own is None:
        pytest.skip("the controllers of a cluster of the user's are not stopped")
    controllers = own.directory.processes().pid("kube-controller-manager")
    assert controllers is not None
    namespace = new_namespace(api)
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits", {"suspend": True}))
        user.until_phase("digits", Phase.SUSPENDED)
        os.kill(controllers, signal.SIGSTOP)  # it would remove the job within a second
        try:
            api.delete("Namespace", namespace)
            user.kubectl.run("patch", "fij", "digits", "--type=merge", '--patch={"spec":{"suspend":false}}')
            words = (f"namespace {namespace}", "is being deleted", "apply the job in another namespace")
            user.until_told("digits", Reason.NAMESPACE_TERMINATING, *words, phase=Phase.PENDING)
            user.poke("digits", process)
            assert user.warnings("digits") == []  # an Event is an object, too
            with pytest.raises(KubectlError, match="because it is being terminated"):
                user.apply(job_of("another"))
        finally:
            os.kill(controllers, signal.SIGCONT)

        def gone() -> bool:
            return not [item for item in api.list("Namespace") if item["metadata"]["name"] == namespace]

        until(gone, f"namespace {namespace} to go: nothing of ours holds it", seconds=60)


# The operator itself.


def test_a_job_of_another_manager_is_left_alone(user: User, world: World) -> None:
    user.apply(job_of("theirs", {"managedBy": "kueue.x-k8s.io/multikueue"}))
    user.poke("theirs", world.operator)
    assert user.children("theirs") == {}
    assert user.status("theirs") == {}
    assert user.events("theirs") == []


def ended(kubeconfig: Path, namespace: str) -> str:
    """Run an operator that cannot start; return the line that it leaves."""
    command = [sys.executable, "-m", "engram_operator", "--health-port", "0", "--namespace", namespace]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ENGRAM_OPERATOR_")}
    with subprocess.Popen(
        [*command, "--kubeconfig", str(kubeconfig)], stderr=subprocess.PIPE, text=True, env=clean
    ) as process:
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    (line,) = errors.splitlines()
    print(line)
    return str(line)


def test_the_crd_of_an_older_version(control_plane: Cluster, api: Api, crd: str, namespace: str) -> None:
    found = api.get("CustomResourceDefinition", crd)
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["runPolicy"]["properties"]["ttlSecondsAfterFinished"]
    api.ask("PUT", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}", found)
    user = User(api, control_plane.kubectl.inside(namespace), namespace)
    user.apply(job_of("digits"))

    def told() -> str:
        line = ended(control_plane.kubeconfig, namespace)
        if "is of another version and does not know" not in line:
            raise NotYet(line)
        return line

    try:
        line = until(told, "the operator to see the older CRD")
        assert "spec.runPolicy.ttlSecondsAfterFinished" in line
        assert user.children("digits") == {}
        assert user.status("digits") == {}
        _, _, command = line.rpartition("run `")
        assert command == f"{INSTALL}`"
        assert "kubectl apply --server-side --force-conflicts -f -" in command
    finally:
        written = subprocess.run(
            [sys.executable, "-m", "engram", "crd"], capture_output=True, text=True, check=True
        )
        flags = ("--server-side", "--force-conflicts", "--filename=-")
        control_plane.kubectl.run("apply", *flags, stdin=written.stdout)
    until(
        lambda: (
            "ttlSecondsAfterFinished" in json.dumps(api.ask("GET", f"/openapi/v3/apis/{GROUP}/v1alpha1").body)
        ),
        "the newest CRD to be served",
    )


def role(namespace: str, rights: tuple[Right, ...]) -> list[Object]:
    """Return a role with these rights, bound to the namespace's default account."""
    rules = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        for right in rights
    ]
    metadata = {"name": "operator", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    ]


def without_secrets(rights: tuple[Right, ...]) -> tuple[Right, ...]:
    """Return the rights but for making Secrets."""
    return tuple(
        right._replace(verbs=tuple(verb for verb in right.verbs if verb != "create"))
        if right.resource == "secrets"
        else right
        for right in rights
    )


@pytest.mark.usefixtures("crd", "cloud")
def test_a_right_that_the_operator_lacks(
    control_plane: Cluster, api: Api, namespace: str, tmp_path: Path
) -> None:
    user = User(api, control_plane.kubectl.inside(namespace), namespace)
    kubeconfig = control_plane.kubeconfig_of(namespace, "default", tmp_path)
    everything = (*RIGHTS, *RIGHTS_OUTSIDE)

    def grant(rights: tuple[Right, ...]) -> None:
        for item in role(namespace, rights):
            user.kubectl.apply(json.dumps(item))

    grant(without_secrets(everything))

    def told() -> str:
        line = ended(kubeconfig, namespace)
        if f"may not create secrets in namespace {namespace}: " not in line:
            raise NotYet(line)
        return line

    assert "bind it to the role engram-operator of deploy/" in until(told, "the operator to miss its right")
    grant(everything)
    with operator(kubeconfig, tmp_path / "operator.log", "--namespace", namespace) as process:
        grant(without_secrets(everything))
        review = ("auth", "can-i", "create", "secrets", f"--as=system:serviceaccount:{namespace}:default")

        def revoked() -> bool:
            try:
                return user.kubectl.run(*review).strip() == "no"
            except KubectlError:
                return True

        until(revoked, "the right to be revoked")
        user.apply(job_of("digits"))

        words = (f"{Child.CREDENTIALS}", 'cannot create resource "secrets"', "have an administrator grant")
        user.until_told("digits", Reason.POD_REFUSED, *words, phase=Phase.PENDING)
        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.POD_REFUSED]

        grant(everything)
        until(lambda: not revoked(), "the right to be back")
        user.kubectl.run("annotate", "fij", "digits", "mended=true")  # or within a quarter of a minute
        user.until_phase("digits", Phase.RUNNING)
