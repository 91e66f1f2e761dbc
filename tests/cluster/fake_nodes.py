"""Nodes that exist in the API only: the real scheduler places pods on them by labels, taints and capacity.

Their heartbeats are not missed: the control plane's grace period is a day, and a test says itself when a node
is lost. Their names start with `fake-`, so that in a cluster of the user's no real node is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.cluster.api import Api, Object

FAKE = "fake-"
"""Start of every fake node's name."""

CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "5000"}


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    effect: str = "NoSchedule"
    value: str = ""


def build_node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Taint] = (),
    capacity: Mapping[str, str] | None = None,
    address: str = "192.0.2.1",
) -> Object:
    """Return a Ready node; `capacity` adds to a large default (`{"nvidia.com/gpu": "1"}`)."""
    if not name.startswith(FAKE):
        raise ValueError(f"{name!r} is no name for a fake node: write {FAKE}{name}")
    resources = {**CAPACITY, **(capacity or {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
        },
        "spec": {"taints": [{"key": t.key, "effect": t.effect, "value": t.value} for t in taints]},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [_ready(True)],
        },
    }


def set_ready(api: Api, name: str, ready: bool) -> None:
    """Make a fake node Ready, or lost as an unreachable one is (Ready Unknown)."""
    api.patch("Node", name, {"status": {"conditions": [_ready(ready)]}}, part="status")


def _ready(ready: bool) -> Object:
    """Return the condition."""
    return {
        "type": "Ready",
        "status": "True" if ready else "Unknown",
        "reason": "KubeletReady" if ready else "NodeStatusUnknown",
        "message": "" if ready else "Kubelet stopped posting node status.",
    }
