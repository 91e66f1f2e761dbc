"""GPUs that a node says it has: enough for scheduling and admission, without any device.

An extended resource is a number in the node's status. kubelet keeps what an administrator wrote there, over
its own restarts too, as long as its device manager's checkpoint is on the node's disk; only a node that is
registered anew starts from zero.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.api import Api
from tests.cluster.waiting import NotYet, until

RESOURCE = "nvidia.com/gpu"


def give(api: Api, node: str, count: int = 1, resource: str = RESOURCE) -> None:
    """Make `node` offer `count` GPUs and wait until the scheduler may count on them; 0 takes them away."""
    amount = str(count)
    change: dict[str, Any] = {"status": {"capacity": {resource: amount}, "allocatable": {resource: amount}}}
    api.patch("Node", node, change, part="status")
    until(lambda: _offers(api, node, count, resource), f"{count} {resource} on node {node}")


def _offers(api: Api, node: str, count: int, resource: str) -> bool:
    """Tell whether the node's status says so, after kubelet has had its word."""
    status = api.get("Node", node)["status"]
    found = {key: status[key].get(resource, "0") for key in ("capacity", "allocatable")}
    if set(found.values()) != {str(count)}:
        raise NotYet(f"it offers {found}")
    return True
