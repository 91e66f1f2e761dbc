"""Cluster DNS: CoreDNS on the cloud node's own address, as an administrator may run it outside of pods.

kubelet hands that address to the pods of nodes that have cluster DNS; edge nodes have none, as KubeEdge's
without EdgeMesh. Names outside of the cluster are refused at once: nothing here may reach the world.
"""

from __future__ import annotations

from typing import Any

from tests.cluster import binaries
from tests.cluster.api import APPLY, Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node

USER = "system:coredns"

_CONFIG = """\
.:53 {{
    bind {address}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
        ttl 2
    }}
}}
"""

_PERMISSION: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": USER},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
}
"""Services, EndpointSlices and namespaces may be read with Kubernetes' own role."""
_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


def permit(api: Api) -> None:
    """Give CoreDNS the right to read what it answers with."""
    query = {"fieldManager": "engram-tests"}
    api.ask("PATCH", f"{_BINDINGS}/{USER}", _PERMISSION, content=APPLY, query=query)


def start(node: Node, control_plane: ControlPlane) -> None:
    """Start CoreDNS on the node and wait until it has read the cluster's Services."""
    kubeconfig = control_plane.authority.kubeconfig("coredns", control_plane.node_server, user=USER)
    config = node.root / "Corefile"
    config.write_text(_CONFIG.format(address=node.address, kubeconfig=kubeconfig), encoding="utf-8")
    node.spawn("coredns", [binaries.find("coredns"), "-conf", config])
    node.wait_for("coredns", "http://127.0.0.1:8181/ready")
