"""Whether workers will find the aggregator: address, port, DNS. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import FEDERATION_PORT
from engram_kubectl.check.facts import Facts
from engram_kubectl.check.findings import Found, fail, ok, unreadable, warn
from engram_kubectl.check.nodes import Node
from engram_operator.manifests import EndpointUnknown, endpoints_of
from engram_operator.manifests.names import node_port_name
from engram_operator.model import NodeView
from engram_operator.settings import Settings

EXPOSE = "spec.aggregator.expose"
NODE_PORTS = range(30000, 32768)
"""What API servers give to node ports by default."""


def check_endpoint(job: FederatedIncrementalJob, facts: Facts, settings: Settings) -> Found:
    """Say what workers will dial, as the operator works it out."""
    expose = job.spec.aggregator.expose
    views = None if facts.nodes is None else tuple(NodeView.from_object(node) for node in facts.nodes)
    try:
        addresses = endpoints_of(job, None, views, settings)
    except EndpointUnknown as error:
        return fail("endpoint", f"{error.field}: {error.problem}", error.remedy)
    if not addresses:
        return ok("endpoint", f"{expose.type}: Kubernetes chooses the port when the job starts")
    return ok("endpoint", f"{expose.type}: workers dial {', '.join(addresses)}")


def check_port(job: FederatedIncrementalJob, facts: Facts) -> list[Found]:
    """Judge the port that the job opens on nodes; a dry run does not, for nothing is allocated there."""
    expose = job.spec.aggregator.expose
    if expose.type == "NodePort" and expose.port:
        return [_node_port(job, expose.port, facts)]
    if expose.type == "HostPort":
        return [_host_port(job.spec.aggregator.node_name, expose.port or FEDERATION_PORT, facts)]
    return []


def _node_port(job: FederatedIncrementalJob, port: int, facts: Facts) -> Found:
    if facts.services is None:
        return unreadable("port", "Services of all namespaces")
    own = (job.metadata.namespace, node_port_name(job.name))
    for service in facts.services:
        name = (service["metadata"]["namespace"], service["metadata"]["name"])
        ports = {item.get("nodePort") for item in (service.get("spec") or {}).get("ports") or ()}
        if port in ports and name != own:
            return fail(
                "port", f"{port} is that of Service {'/'.join(name)}", f"write another {EXPOSE}.port, or 0"
            )
    if port not in NODE_PORTS:
        first, last = NODE_PORTS[0], NODE_PORTS[-1]
        return warn(
            "port",
            f"{port} is outside {first}-{last}, which clusters give to node ports unless told otherwise",
            f"write {EXPOSE}.port within the cluster's range, or 0 for any that is free",
        )
    return ok("port", f"{port} is free")


def _host_port(node: str, port: int, facts: Facts) -> Found:
    if facts.pods is None:
        return unreadable("port", "Pods of all namespaces")
    for pod in facts.pods:
        spec, meta = pod.get("spec") or {}, pod["metadata"]
        opened = (item.get("ports") or () for item in spec.get("containers") or ())
        if spec.get("nodeName") == node and any(
            item.get("hostPort") == port for ports in opened for item in ports
        ):
            return fail(
                "port",
                f"{port} of node {node} is taken by pod {meta['namespace']}/{meta['name']}",
                f"write another {EXPOSE}.port",
            )
    return ok("port", f"{port} of node {node} is free, as far as pods go")


def check_edge(job: FederatedIncrementalJob, nodes: Sequence[Node] | None) -> list[Found]:
    """Warn where a worker may sit on an edge node, and the address is one of the cluster's network."""
    expose = job.spec.aggregator.expose
    if expose.type != "ClusterIP" or expose.address:
        return []
    there = [node.name for node in nodes or () if node.edge]
    at_edge = [group.name for group in job.spec.workers if group.placement == "edge"]
    perhaps = [group.name for group in job.spec.workers if group.placement == "any" and there]
    if not at_edge and not perhaps:
        return []
    who = (
        f"{', '.join(at_edge)} on edge nodes"
        if at_edge
        else f"{', '.join(perhaps)}, if on {', '.join(there[:3])},"
    )
    return [
        warn(
            "edge",
            f"{who} can dial a Service by its name only with EdgeMesh",
            f"set {EXPOSE}.type NodePort or HostPort, or {EXPOSE}.address",
        )
    ]


def check_dns(job: FederatedIncrementalJob, facts: Facts, settings: Settings) -> Found:
    """Judge the cluster's DNS, which workers need for a Service's name."""
    expose = job.spec.aggregator.expose
    needed = (expose.type == "ClusterIP" and not expose.address) or any(
        group.placement == "cloud" for group in job.spec.workers
    )
    if not needed:
        return ok("dns", "not needed: workers are given addresses")
    if facts.dns is None:
        return unreadable("dns", "Services of kube-system")
    if not facts.dns:
        return warn(
            "dns",
            f"no Service k8s-app=kube-dns in kube-system: is *.svc.{settings.cluster_domain} resolved?",
            f"install CoreDNS, or give workers an address with {EXPOSE}",
        )
    return ok("dns", f"{facts.dns[0]['metadata']['name']} in kube-system")
