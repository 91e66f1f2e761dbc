"""Where pods may run: `edge`, `cloud` or `any`, a node by name, a GPU. All of it goes through the scheduler.

KubeEdge knows an edge node by a label; admins often add a taint of the same name. When an edge node goes
offline, its pods are marked for deletion after five minutes and killed on reconnection, unless they tolerate
that without limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.spec.names import Label
from engram.spec.topology import Gpus, Placement
from engram_operator.model import Object

OFFLINE_TAINTS = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
AUTONOMY = "autonomy"
"""Value of `Label.APP_OFFLINE`."""

_NOT_EDGE: Object = {"key": str(Label.EDGE_NODE), "operator": "DoesNotExist"}


def scheduling(placement: Placement, *, node_name: str = "", exposed: bool = True) -> Object:
    """Return nodeSelector, affinity and tolerations of a pod's spec.

    Args:
        placement: edge: only nodes with the edge label, also tainted or offline ones; cloud: only nodes
            without it; any: all nodes, a tainted edge node too.
        node_name: only this node, by its name: the label kubernetes.io/hostname may differ from it.
        exposed: whether the job says how edge nodes reach the aggregator. If not, `any` prefers nodes with a
            cluster network, where the Service's name works.
    """
    spec: Object = {}
    term: Object = {}
    affinity: Object = {}
    if placement == "edge":
        spec["nodeSelector"] = {str(Label.EDGE_NODE): ""}
    elif placement == "cloud":
        term["matchExpressions"] = [dict(_NOT_EDGE)]
    elif not exposed:
        preference = {"weight": 100, "preference": {"matchExpressions": [dict(_NOT_EDGE)]}}
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [preference]
    if node_name:
        term["matchFields"] = [{"key": "metadata.name", "operator": "In", "values": [node_name]}]
    if term:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}
    if placement != "cloud":
        spec["tolerations"] = [{"key": str(Label.EDGE_NODE), "operator": "Exists"}]
    if placement == "edge":
        spec["tolerations"] += [
            {"key": taint, "operator": "Exists", "effect": "NoExecute"} for taint in OFFLINE_TAINTS
        ]
    return spec


def placement_labels(placement: Placement) -> dict[str, str]:
    """Return the labels that a pod's placement asks for."""
    return {str(Label.APP_OFFLINE): AUTONOMY} if placement == "edge" else {}


def gpu_tolerations(gpus: Gpus) -> list[Object]:
    """Return the toleration of the taint by which GPU nodes keep other pods away."""
    if not gpus.count:
        return []
    return [{"key": gpus.resource_name, "operator": "Exists", "effect": "NoSchedule"}]


def gpu_resources(resources: Mapping[str, Any], gpus: Gpus) -> Object:
    """Return a container's resources with the GPUs in its limits.

    Kubernetes makes the request of an extended resource equal to its limit, so one of the user's goes.
    """
    if not gpus.count:
        return dict(resources)
    limits = {**(resources.get("limits") or {}), gpus.resource_name: str(gpus.count)}
    requests = {
        name: amount
        for name, amount in (resources.get("requests") or {}).items()
        if name != gpus.resource_name
    }
    return {**resources, "limits": limits, **({"requests": requests} if "requests" in resources else {})}
