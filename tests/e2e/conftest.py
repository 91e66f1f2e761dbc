"""Fixtures of tests on real nodes: those of the control plane level, over a cluster that has nodes.

`ENGRAM_TEST_KUBECONFIG` may name the kubeconfig of a cluster that stands already (`python -m tests.cluster up
--nodes 3`, with `--edge kubeedge` for the tests of KubeEdge), which makes a single test quick; or of a
cluster of the user's, where faults are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import base_image, binaries, lifecycle, node_level
from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import (  # noqa: F401  used by name
    KUBECONFIG_VARIABLE,
    Cluster,
    api,
    crd,
    kubectl,
    namespace,
    unavailable,
)
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import Edge, NodeLevel
from tests.cluster.state import ClusterDirectory
from tests.e2e.faulted import checkpoint, claim, report, start  # noqa: F401  used by name
from tests.e2e.jobs import OPERATOR, SYSTEM, Jobs
from tests.e2e.volumes import Volumes

ROOT = Path(__file__).resolve().parents[2]
OURS = {"operator", "user"}
"""Fixtures of tests whose pods run the images of this tree."""


def edge_of(session: pytest.Session) -> Edge:
    """Return what the nodes at the edge run in this session."""
    kubeedge = any(item.get_closest_marker("kubeedge") for item in session.items)
    return Edge.KUBEEDGE if kubeedge else Edge.KUBELET


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with real nodes: started on first use, ended with the session.

    Those at the edge are KubeEdge's if the session has tests of KubeEdge. Where a test needs the operator,
    its nodes have the images of this tree from the start.
    """
    named = os.environ.get(KUBECONFIG_VARIABLE)
    directory = ClusterDirectory(Path(named).parents[1]) if named else lifecycle.own_directory()
    try:
        program = binaries.find("kubectl")
        if not named:
            lifecycle.sweep()
            edge = edge_of(request.session)
            node_level.check(edge)
            if any(OURS & set(getattr(item, "fixturenames", ())) for item in request.session.items):
                base_image.archives()
            lifecycle.up(directory, node_level.NAMES, edge=edge, owned=True)
    except node_level.NodesImpossible as reason:
        pytest.skip(str(reason))
    except binaries.Unavailable as reason:
        unavailable(str(reason))
    kubeconfig = Path(named) if named else directory.kubeconfig
    client = Api(kubeconfig)
    yield Cluster(kubeconfig, client, Kubectl(program, kubeconfig), ControlPlane.load(directory))
    client.close()
    if not named:
        lifecycle.down(directory)


@pytest.fixture(scope="session")
def level(control_plane: Cluster) -> NodeLevel:
    """The nodes, for faults and images."""
    own = control_plane.control_plane
    found = node_level.load(own.directory) if own is not None else None
    if found is None:
        pytest.skip(f"{KUBECONFIG_VARIABLE} names a cluster whose nodes are not ours to break")
    return found


@pytest.fixture(scope="session")
def operator(control_plane: Cluster, crd: str) -> str:  # noqa: F811  the fixture
    """The operator in a pod, deployed as `make deploy` does it; the name of its Deployment.

    A cluster that the user named has the images already (`make images`).
    """
    control_plane.kubectl.run("apply", "--server-side", f"--filename={ROOT / 'deploy'}")
    rollout = ("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")
    control_plane.kubectl.inside(SYSTEM).run(*rollout, seconds=130)
    return OPERATOR


@pytest.fixture
def volumes(api: Api, level: NodeLevel) -> Iterator[Volumes]:  # noqa: F811  the fixture
    """Make `local` volumes that go with the test."""
    made = Volumes(api, level)
    yield made
    made.remove()


@pytest.fixture
def jobs(api: Api, kubectl: Kubectl, operator: str) -> Jobs:  # noqa: F811  the fixtures
    """The jobs of the test's namespace, which an operator sees to."""
    return Jobs(api, kubectl)
