"""cloudcore of the test clusters: what is said and written before it is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.cloudcore import CRDS, CloudCore, configuration
from tests.cluster.control_plane import ControlPlane, Ports
from tests.cluster.state import ClusterDirectory


class Server(Api):
    """An API server that has CRDs of these names, all of them Established but for `pending`."""

    def __init__(self, *names: str, pending: str = "") -> None:
        self._names, self._pending = names, pending

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """Return a CRD."""
        if name not in self._names:
            raise ApiError(404, {"message": f"{kind} {name} not found"})
        established = "False" if name == self._pending else "True"
        return {"status": {"conditions": [{"type": "Established", "status": established}]}}


@pytest.mark.parametrize("missing", CRDS)
@pytest.mark.parametrize("pending", [False, True], ids=["absent", "not-established"])
def test_a_crd_that_is_missing_is_named_before_anything_is_started(
    missing: str, pending: bool, tmp_path: Path
) -> None:
    directory = ClusterDirectory(tmp_path / "cluster")
    there = Server(*CRDS, pending=missing) if pending else Server(*(name for name in CRDS if name != missing))

    with pytest.raises(RuntimeError, match=f"KubeEdge's CRDs are missing: {missing}; .* Apply build/crds of"):
        CloudCore(ControlPlane(directory, Ports()), "10.77.0.1").start(there)

    assert not directory.exists


def test_cloudcore_makes_no_folder_outside_its_clusters(tmp_path: Path) -> None:
    """It makes the folder of its socket even when it opens none."""
    modules = configuration("10.77.0.1", tmp_path / "kubeconfig", tmp_path)["modules"]

    assert modules["cloudHub"]["unixsocket"] == {
        "enable": False,
        "address": f"unix://{tmp_path}/kubeedge.sock",
    }
