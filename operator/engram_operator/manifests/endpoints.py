"""Where workers find the aggregator: known before any pod exists, because pods are told at their start."""

from __future__ import annotations

from collections.abc import Sequence

from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import FEDERATION_PORT
from engram_operator.manifests.names import aggregation_name
from engram_operator.model import NodeView, Object
from engram_operator.settings import Settings

MOST_NODES = 3
"""Node addresses that are listed for a node port without `expose.address`; one is enough, two may be down."""

_EXPOSE = "spec.aggregator.expose"
_ADDRESS = f"{_EXPOSE}.address"
_WRITE_ADDRESS = f"write in {_ADDRESS} an address of a node or load balancer that the workers can dial"


class EndpointUnknown(ConfigurationError):
    """No address of the aggregator can be worked out; says what to write."""


def service_endpoint(job: FederatedIncrementalJob, settings: Settings) -> str:
    """Return `host:port` of the aggregation Service, for pods with cluster DNS."""
    host = f"{aggregation_name(job.name)}.{job.metadata.namespace}.svc.{settings.cluster_domain}"
    return f"{host}:{FEDERATION_PORT}"


def endpoints_of(
    job: FederatedIncrementalJob,
    service: Object | None,
    nodes: Sequence[NodeView] | None,
    settings: Settings,
) -> tuple[str, ...]:
    """Return the addresses (`host:port`) that workers who may sit at the edge try in this order.

    Without exposure that is the Service's name. With it, only the exposed addresses: where there is no
    cluster DNS, each try of a Service name would cost a reconnecting worker many seconds. Groups with
    `placement: cloud` are given the Service's name first (`cloud_endpoints`).

    Args:
        job: the job.
        service: the Service `names.node_port_name(job)` as the API server returns it; needed for
            `expose.type: NodePort` with port 0 only, whose port Kubernetes chooses.
        nodes: None where nodes may not be read.
        settings: of the operator.

    Returns `()` while the node port is not known yet: apply the Service, then ask again. Raises
    EndpointUnknown when somebody has to write an address.
    """
    expose = job.spec.aggregator.expose
    _check_address(expose.address)
    if expose.type == "ClusterIP":
        return (join(expose.address, FEDERATION_PORT) if expose.address else service_endpoint(job, settings),)
    if expose.type == "HostPort":
        port = expose.port or FEDERATION_PORT
        return (join(expose.address or _node_address(job.spec.aggregator.node_name, nodes), port),)
    hosts = (expose.address,) if expose.address else _node_port_hosts(nodes)
    node_port = expose.port or _allocated(service)
    return tuple(join(host, node_port) for host in hosts) if node_port else ()


def cloud_endpoints(
    job: FederatedIncrementalJob, endpoints: Sequence[str], settings: Settings
) -> tuple[str, ...]:
    """Return the addresses for workers that never sit at the edge: the Service first, then `endpoints`."""
    name = service_endpoint(job, settings)
    return (name, *(endpoint for endpoint in endpoints if endpoint != name))


def join(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(endpoint: str) -> tuple[str, str]:
    """Return host (an IPv6 address without its brackets) and port of `join`'s result."""
    host, _, port = endpoint.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _check_address(address: str) -> None:
    """Refuse what is more than a host."""
    if "/" in address:
        raise EndpointUnknown(
            f"{address!r} is a URL", field=_ADDRESS, remedy="write the host name or address only"
        )
    if address.count(":") == 1 or "]" in address:
        raise EndpointUnknown(
            f"{address!r} names a port",
            field=_ADDRESS,
            remedy=f"write the host only, an IPv6 address without brackets, and the port in {_EXPOSE}.port",
        )


def _node_address(name: str, nodes: Sequence[NodeView] | None) -> str:
    """Return the address of the node of a HostPort; its name where nodes may not be read."""
    if nodes is None:
        return name
    for node in nodes:
        if node.name == name:
            return node.internal_ip or name
    names = ", ".join(sorted(node.name for node in nodes)[:10])
    raise EndpointUnknown(
        f"there is no node {name}",
        field="spec.aggregator.nodeName",
        remedy=f"write one of: {names}" if names else "add the node first",
    )


def _node_port_hosts(nodes: Sequence[NodeView] | None) -> tuple[str, ...]:
    """Return addresses of nodes that forward a node port: ready ones first, then by name; none at the edge.

    Edge nodes have no kube-proxy. Sorted, so that the same nodes always give the same list.
    """
    if nodes is None:
        raise EndpointUnknown(
            "is missing, and this operator may not read nodes", field=_ADDRESS, remedy=_WRITE_ADDRESS
        )
    inner = [node for node in nodes if not node.edge and node.internal_ip]
    if not inner:
        raise EndpointUnknown(
            "is missing, and no node outside the edge has an InternalIP",
            field=_ADDRESS,
            remedy=_WRITE_ADDRESS,
        )
    ordered = sorted(inner, key=lambda node: (node.ready is None or not node.ready.true, node.name))
    return tuple(node.internal_ip for node in ordered[:MOST_NODES])


def _allocated(service: Object | None) -> int:
    """Return the node port that Kubernetes has chosen; 0: not yet."""
    ports = ((service or {}).get("spec") or {}).get("ports") or ()
    found = [port.get("nodePort") for port in ports if port.get("port") == FEDERATION_PORT]
    return int(found[0] or 0) if found else 0
