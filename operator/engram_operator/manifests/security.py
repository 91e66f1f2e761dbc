"""What Pod Security `restricted` asks of every pod of ours, and of containers that a podTemplate adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.spec.topology import WorkerGroup
from engram_operator.model import Object

USER: int = WorkerGroup.model_fields["run_as_user"].default
"""User of the aggregator and of groups that name none; also the fsGroup of all pods: volumes that several
pods share must not change their group with every mount."""


def pod_security(user: int) -> Object:
    """Return the fields of a pod's spec that keep it apart from the cluster."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def container_security() -> Object:
    """Return the security context of our own containers."""
    return {**_required(), "readOnlyRootFilesystem": True}


def hardened(container: Mapping[str, Any]) -> Object:
    """Return a user's container with what `restricted` asks wherever the user says nothing else."""
    own = container.get("securityContext") or {}
    if not isinstance(own, Mapping):
        return dict(container)  # the API server says what is wrong with it
    return {**container, "securityContext": {**_required(), **own}}


def _required() -> Object:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
