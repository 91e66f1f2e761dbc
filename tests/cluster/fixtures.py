"""pytest fixtures over a real control plane; a conftest imports them by name.

The cluster is started on first use and lives as long as pytest; the next run sweeps one whose pytest was
killed. With `ENGRAM_TEST_KUBECONFIG` naming a kubeconfig the tests run in that cluster instead.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from engram.spec.names import CRD_NAME
from tests.cluster import binaries, lifecycle
from tests.cluster.api import Api, Object, path_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.fake_nodes import Taint, build_node
from tests.cluster.kubectl import Kubectl
from tests.cluster.state import ClusterDirectory
from tests.cluster.waiting import NotYet, until

KUBECONFIG_VARIABLE = "ENGRAM_TEST_KUBECONFIG"
"""Kubeconfig of a cluster of the user's to test in."""

CRDS = Path(__file__).parents[2] / "crds"


@dataclass(frozen=True)
class Cluster:
    """A running cluster, as tests use it."""

    kubeconfig: Path
    api: Api
    kubectl: Kubectl
    control_plane: ControlPlane | None
    """None in a cluster of the user's: nothing there is stopped, and there is no audit log."""

    @property
    def audit_log(self) -> Path:
        """The API server's audit log; skips the test where it is out of reach."""
        if self.control_plane is None:
            pytest.skip(f"{KUBECONFIG_VARIABLE} names a cluster whose audit log cannot be read")
        return self.control_plane.directory.audit_log

    def kubeconfig_of(self, namespace: str, service_account: str, folder: Path) -> Path:
        """Write a kubeconfig in `folder` with the rights of a service account; return its path."""
        path = f"{path_of('ServiceAccount', namespace, service_account)}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.api.ask("POST", path, asked).body["status"]["token"]
        settings = self.api.client.configuration
        server = {"server": settings.host, "certificate-authority": settings.ssl_ca_cert}
        place = {"cluster": "engram", "user": service_account, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "engram", "cluster": server}],
            "users": [{"name": service_account, "user": {"token": token}}],
            "contexts": [{"name": "engram", "context": place}],
            "current-context": "engram",
        }
        file = folder / f"{service_account}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content), encoding="utf-8")
        return file


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build missing programs before the first test that needs a cluster: it takes longer than a test may."""
    wanted = any(item.get_closest_marker(name) for item in session.items for name in ("control", "nodes"))
    missing = [name for name in (*binaries.CONTROL_PLANE, "helm") if binaries.lookup(name) is None]
    if wanted and missing and not session.config.option.collectonly:
        print(f"\nbuilding {', '.join(missing)}: some minutes, once", flush=True)
        for name in missing:
            try:
                binaries.find(name)
            except binaries.Unavailable:
                return  # the fixture says so, as a skip or a failure


def unavailable(reason: str) -> NoReturn:
    """Skip for want of a program, in one line; under CI that is a failure."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"no real control plane: {reason}", pytrace=False)
    pytest.skip(f"no real control plane: {reason}")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A cluster without nodes: started on first use, ended with the session."""
    named = os.environ.get(KUBECONFIG_VARIABLE)
    # One that `python -m tests.cluster up` printed lies in its cluster's folder.
    directory = ClusterDirectory(Path(named).absolute().parents[1]) if named else lifecycle.own_directory()
    try:
        program = binaries.find("kubectl")
        if not named:
            lifecycle.sweep()
            lifecycle.up(directory, owned=True)
    except binaries.Unavailable as reason:
        unavailable(str(reason))
    kubeconfig = Path(named) if named else directory.kubeconfig
    api = Api(kubeconfig)
    yield Cluster(kubeconfig, api, Kubectl(program, kubeconfig), ControlPlane.load(directory))
    api.close()
    if not named:
        lifecycle.down(directory)


@pytest.fixture(scope="session")
def api(control_plane: Cluster) -> Api:
    """The API server, as the administrator."""
    return control_plane.api


@pytest.fixture(scope="session")
def crd(control_plane: Cluster) -> str:
    """The project's CRDs, applied as a user does and Established; the name of the job's."""
    control_plane.kubectl.apply(CRDS)
    until_established(control_plane.api, CRD_NAME)
    return CRD_NAME


def until_established(api: Api, name: str) -> None:
    """Wait until objects of a CRD can be made, by its newest schema."""

    def established() -> bool:
        found = api.get("CustomResourceDefinition", name).get("status", {}).get("conditions") or ()
        return any(item["type"] == "Established" and item["status"] == "True" for item in found)

    until(established, f"{name} to be Established")


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A fresh namespace, deleted in the background after the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def usable() -> bool:
        found = api.list("ServiceAccount", name)
        if not found:
            raise NotYet("its default service account is missing")
        return True

    until(usable, f"namespace {name}")
    yield name
    api.delete("Namespace", name)


@pytest.fixture
def kubectl(control_plane: Cluster, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return control_plane.kubectl.inside(namespace)


class FakeNodes:
    """Makes fake nodes that go with the test."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._names: list[str] = []

    def __call__(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Taint] = (),
        capacity: Mapping[str, str] | None = None,
    ) -> Object:
        """Make a Ready node called `name` (it starts with `fake-`); return it once pods can go there."""
        address = f"192.0.2.{len(self._names) % 250 + 1}"
        item = build_node(name, labels=labels, taints=taints, capacity=capacity, address=address)
        self._api.create(item)
        self._names.append(name)
        wanted = {taint.key for taint in taints}

        def schedulable() -> Object:
            node = self._api.get("Node", name)
            extra = {taint["key"] for taint in node["spec"].get("taints") or ()} - wanted
            if extra:
                raise NotYet(f"it is tainted {', '.join(sorted(extra))}")
            return node

        return until(schedulable, f"node {name} to take pods")

    def remove(self) -> None:
        """Delete all of them."""
        for name in self._names:
            self._api.delete("Node", name)


@pytest.fixture
def fake_node(api: Api) -> Iterator[FakeNodes]:
    """Make fake nodes: `fake_node("fake-edge", labels={...}, capacity={"nvidia.com/gpu": "1"})`."""
    nodes = FakeNodes(api)
    yield nodes
    nodes.remove()


@pytest.fixture
def fake_kubelet(api: Api) -> Iterator[FakeKubelet]:
    """Run the pods of fake nodes; they run until a test ends them (`end_pod`)."""
    with FakeKubelet(api) as kubelet:
        yield kubelet
