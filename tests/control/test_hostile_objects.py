"""One tenant's objects must not end the operator of all others: what a real API server takes, it survives."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engram.spec.names import API_VERSION, KIND, Annotation, Label
from tests.cluster.api import Api, path_of
from tests.cluster.fixtures import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import NotYet, until
from tests.control.operator_process import OperatorProcess, operator

pytestmark = [pytest.mark.control, pytest.mark.usefixtures("crd")]

DEEP = '{"apiVersion":"%s","kind":"%s","metadata":{"name":"%s","namespace":"%s"},"spec":%s}'
"""Text, because Python's own JSON ends at a thousand levels."""
TOO_DEEP = "spec.aggregator.podTemplate.a: nested too deeply: nest at most 100 levels"


@dataclass(frozen=True)
class Tenants:
    """Two namespaces that one operator works on."""

    hostile: Kubectl
    other: str
    api: Api
    running: OperatorProcess

    def nested(self, name: str, levels: int) -> None:
        """Create a job with a podTemplate of so many levels, as the hostile tenant."""
        template = '{"a":' * levels + "1" + "}" * levels
        spec = f'{{"aggregator":{{"podTemplate":{template}}}}}'
        path = path_of(KIND, self.hostile.namespace)
        text = DEEP % (API_VERSION, KIND, name, self.hostile.namespace, spec)
        self.hostile.run("create", f"--raw={path}", "--filename=-", stdin=text)

    def refused(self, name: str) -> None:
        """Check that the hostile tenant's job is told what is wrong with it."""
        columns = "jsonpath={.status.phase} {.status.reason}: {.status.message}"

        def told() -> bool:
            said = self.hostile.run("get", KIND, name, f"--output={columns}")
            if said != f"Failed InvalidSpec: {TOO_DEEP}":
                raise NotYet(said)
            return True

        until(told, f"job {name} to be refused")

    def serves_others(self, name: str) -> None:
        """Check that a job of the other tenant that is created now starts."""
        meta = {"name": name, "namespace": self.other}
        spec = {"workers": [{"name": "edge", "replicas": 1}]}
        self.api.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec})

        def started() -> bool:
            if self.running.process.poll() is not None:
                raise RuntimeError(f"the operator ended: {self.running.log.read_text()[-2000:]}")
            status = self.api.get(KIND, name, self.other).get("status") or {}
            if not status:
                raise NotYet("it has no status")
            return status.get("phase") == "Starting" and bool(self.api.list("Pod", self.other))

        until(started, f"job {name} to start")


@pytest.fixture
def tenants(
    control_plane: Cluster, api: Api, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> Iterator[Tenants]:
    """An operator of two namespaces."""
    other = f"test-{uuid.uuid4().hex[:8]}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    log = tmp_path / "operator.log"
    with operator(control_plane.kubeconfig, log, "--namespace", f"{namespace},{other}") as running:
        yield Tenants(kubectl, other, api, running)
    api.delete("Namespace", other)


def test_a_pod_whose_index_is_no_number_ends_nothing(tenants: Tenants, api: Api, namespace: str) -> None:
    for index in ("²", "9" * 5000):
        meta = {
            "generateName": "evil-",
            "namespace": namespace,
            "labels": {Label.JOB: "digits"},
            "annotations": {Annotation.COMPLETION_INDEX: index},
        }
        container = {"name": "main", "image": "none:1"}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})
    tenants.serves_others("digits")
    assert "Traceback" not in tenants.running.log.read_text()


def test_a_job_that_nests_as_deep_as_the_api_server_takes_is_invalid_and_ends_nothing(
    tenants: Tenants, control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    for levels in (600, 1_500, 9_900):
        tenants.nested(f"deep-{levels}", levels)
        tenants.refused(f"deep-{levels}")
    tenants.serves_others("watched")
    assert tenants.running.stop() == 0
    where = f"{namespace},{tenants.other}"
    with operator(control_plane.kubeconfig, tmp_path / "next.log", "--namespace", where) as again:
        Tenants(tenants.hostile, tenants.other, tenants.api, again).serves_others("listed")
        assert again.stop() == 0
    for log in (tenants.running.log, again.log):
        assert "Traceback" not in log.read_text()
