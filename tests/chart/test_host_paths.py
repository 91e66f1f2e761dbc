"""The policy about host paths: every place of a job where one can stand, on the real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engram.spec.names import API_VERSION, KIND
from tests.chart.conftest import CHART
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.helm import Helm
from tests.cluster.waiting import NotYet, until

pytestmark = pytest.mark.control

REMEDY = "use a folder of /data, /mnt/edge, or a PersistentVolumeClaim"


def host_path(path: str) -> Object:
    return {"hostPath": {"path": path}}


def job(spec: Object, name: str = "digits") -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec}


def pods(path: str) -> Object:
    """A podTemplate that mounts `path` beside something harmless."""
    return {"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", **host_path(path)}]}}


def places(path: str) -> dict[str, Object]:
    """A spec for each place where a job can name a host path."""
    plain: Object = {"name": "plain", "replicas": 1}
    group: Object = {"name": "edge", "replicas": 1}
    return {
        "spec.dataset.volume": {"dataset": {"name": "folder", "volume": host_path(path)}},
        "spec.aggregator.checkpoint.volume": {"aggregator": {"checkpoint": {"volume": host_path(path)}}},
        "spec.aggregator.podTemplate.spec.volumes": {"aggregator": {"podTemplate": pods(path)}},
        "spec.report.volume": {"report": {"volume": host_path(path)}},
        "spec.workers[].dataset.volume": {
            "workers": [plain, {**group, "dataset": {"volume": host_path(path)}}]
        },
        "spec.workers[].state.volume": {"workers": [plain, {**group, "state": {"volume": host_path(path)}}]},
        "spec.workers[].podTemplate.spec.volumes": {"workers": [plain, {**group, "podTemplate": pods(path)}]},
    }


@pytest.fixture(scope="module")
def old(control_plane: Cluster, crd: str) -> str:
    """A job that was there before the policy."""
    control_plane.api.create(job({"dataset": {"name": "folder", "volume": host_path("/etc")}}, "old"))
    return "old"


@pytest.fixture(scope="module", autouse=True)
def policy(control_plane: Cluster, crd: str, old: str) -> Iterator[None]:
    """The policy of the chart, in force."""
    helm = Helm(CHART, control_plane.kubeconfig, "default")
    others = {"crds": {"enabled": False}, "userRoles": {"create": False}, "rbac": {"create": False}}
    allowed = {"restrict": True, "allowed": ["/data", "/mnt/edge"]}
    helm.install("lab", values={**others, "jobs": {"hostPaths": allowed}})

    def in_force() -> bool:
        try:
            control_plane.api.create(job({"report": {"volume": host_path("/etc")}}), dry_run=True)
        except ApiError:
            return True
        raise NotYet("a job with /etc is still taken")

    until(in_force, "the policy to be in force", seconds=60)
    yield
    helm.uninstall("lab")
    control_plane.api.delete(KIND, old, "default")


@pytest.mark.parametrize("place", places(""))
@pytest.mark.parametrize("path", ["/etc", "/database", "/data/../etc", "/", "/mnt"])
def test_other_paths_are_refused_with_their_place_and_the_way_out(api: Api, place: str, path: str) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(job(places(path)[place]), dry_run=True)
    assert refused.value.message.endswith(f"{place}: this hostPath is not allowed here: {REMEDY}")


@pytest.mark.parametrize("place", places(""))
@pytest.mark.parametrize("path", ["/data", "/data/train", "/mnt/edge/a/b"])
def test_allowed_folders_and_what_lies_below_them_are_taken(api: Api, place: str, path: str) -> None:
    api.create(job(places(path)[place]), dry_run=True)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"dataset": {"name": "digits", "volume": {"persistentVolumeClaim": {"claimName": "a"}}}},
        {"workers": [{"name": "edge", "dataset": {"volume": None}}]},
        {"aggregator": {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}},
    ],
    ids=["nothing", "a claim", "null", "a podTemplate without volumes"],
)
def test_jobs_without_host_paths_are_none_of_its_business(api: Api, spec: dict[str, Any]) -> None:
    api.create(job(spec), dry_run=True)


def test_what_was_there_before_can_be_suspended_and_keeps_its_path_only(api: Api, old: str) -> None:
    api.patch(KIND, old, {"metadata": {"labels": {"a": "b"}}}, namespace="default")
    api.patch(KIND, old, {"status": {"message": "Still runs."}}, namespace="default", part="status")
    api.patch(KIND, old, {"spec": {"suspend": True}}, namespace="default")
    with pytest.raises(ApiError, match=r"spec\.dataset\.volume: this hostPath is not allowed here"):
        api.patch(KIND, old, {"spec": {"dataset": {"volume": host_path("/root")}}}, namespace="default")
