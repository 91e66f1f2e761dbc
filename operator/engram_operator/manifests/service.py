"""Services in front of the aggregator.

`<job>-aggregation` is inside the cluster whatever `expose` says. A NodePort Service opens a node port for
each of its ports, and the status port must never have one: so there is a second Service for the node port,
with the federation port alone. HostPort needs none: the port is the pod's own.
"""

from __future__ import annotations

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import (
    FEDERATION_PORT,
    FEDERATION_PORT_NAME,
    STATUS_PORT,
    STATUS_PORT_NAME,
    Role,
)
from engram_operator.manifests.labels import aggregator_selector, metadata
from engram_operator.manifests.names import aggregation_name, node_port_name
from engram_operator.model import Object


def aggregation_service(job: FederatedIncrementalJob) -> Object:
    """Return the Service for workers in the cluster, Prometheus and the operator."""
    ports = [_port(FEDERATION_PORT_NAME, FEDERATION_PORT), _port(STATUS_PORT_NAME, STATUS_PORT)]
    return _service(job, aggregation_name(job.name), "ClusterIP", ports)


def node_port_service(job: FederatedIncrementalJob) -> Object | None:
    """Return the Service for workers that dial a node; None unless `expose.type` is NodePort."""
    expose = job.spec.aggregator.expose
    if expose.type != "NodePort":
        return None
    port = _port(FEDERATION_PORT_NAME, FEDERATION_PORT)
    if expose.port:
        port["nodePort"] = expose.port
    return _service(job, node_port_name(job.name), "NodePort", [port])


def _service(job: FederatedIncrementalJob, name: str, kind: str, ports: list[Object]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, name, Role.AGGREGATOR),
        "spec": {"type": kind, "selector": aggregator_selector(job), "ports": ports},
    }


def _port(name: str, number: int) -> Object:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
