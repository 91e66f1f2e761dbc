"""NetworkPolicy `<job>`: who may talk to the aggregator. Made where the administrator wants it.

Only the aggregator listens, so only its pod is guarded. Nothing is said of what pods send: workers dial out,
and what a cluster allows there is its administrator's affair.
"""

from __future__ import annotations

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import FEDERATION_PORT, STATUS_PORT, Label, Role
from engram_operator.manifests.labels import MANAGER, aggregator_selector, metadata
from engram_operator.model import Object
from engram_operator.settings import Settings

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""Label that Kubernetes puts on every namespace."""
PROMETHEUS = "prometheus"
"""Value of `app.kubernetes.io/name` of Prometheus' pods, as its operator and charts set it."""


def network_policy(job: FederatedIncrementalJob, settings: Settings) -> Object | None:
    """Return the policy; None where the administrator wants none.

    The federation port is open to the job's workers, and to everybody once the job exposes it: what dials a
    node's port has lost its own address on the way. The status port is open to the operator, the report's pod
    and Prometheus. An operator outside the cluster comes through the API server, which no selector can name:
    then the status port is open to all.
    """
    if not settings.network_policy:
        return None
    exposed = job.spec.aggregator.expose.type != "ClusterIP" or bool(job.spec.aggregator.expose.address)
    federation: Object = {"ports": [_port(FEDERATION_PORT)]}
    if not exposed:
        federation["from"] = [_own(job, Role.WORKER)]
    status: Object = {"ports": [_port(STATUS_PORT)]}
    if settings.own_namespace:
        status["from"] = [
            _own(job, Role.REPORT),
            {**_namespace(settings.own_namespace), **_pods({str(Label.NAME): MANAGER})},
            {**_namespace(settings.prometheus_namespace), **_pods({str(Label.NAME): PROMETHEUS})},
        ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, job.name, Role.AGGREGATOR),
        "spec": {
            "podSelector": {"matchLabels": aggregator_selector(job)},
            "policyTypes": ["Ingress"],
            "ingress": [federation, status],
        },
    }


def _port(number: int) -> Object:
    return {"port": number, "protocol": "TCP"}


def _own(job: FederatedIncrementalJob, role: Role) -> Object:
    return _pods({**aggregator_selector(job), str(Label.ROLE): str(role)})


def _pods(labels: dict[str, str]) -> Object:
    return {"podSelector": {"matchLabels": labels}}


def _namespace(name: str) -> Object:
    """Return the selector of a namespace; of all of them where it has no name."""
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}} if name else {}}
