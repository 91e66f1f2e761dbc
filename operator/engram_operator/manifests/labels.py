"""What every child carries: labels to find it by, and the owner that it goes with."""

from __future__ import annotations

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import API_VERSION, KIND, Label, Role
from engram_operator.model import Object

APPLICATION = "engram"
"""Value of `app.kubernetes.io/name` and `part-of`."""
MANAGER = "engram-operator"
"""Value of `app.kubernetes.io/managed-by`; a label value holds no slash."""


def labels(job: FederatedIncrementalJob, role: Role, group: str = "") -> dict[str, str]:
    """Return the labels of a child of `job`; `group` for what belongs to one worker group."""
    found = {
        Label.NAME: APPLICATION,
        Label.INSTANCE: job.name,
        Label.COMPONENT: role,
        Label.PART_OF: APPLICATION,
        Label.MANAGED_BY: MANAGER,
        Label.JOB: job.name,
        Label.JOB_UID: job.metadata.uid,
        Label.ROLE: role,
    }
    if group:
        found[Label.GROUP] = group
    return {str(key): str(value) for key, value in found.items()}


def aggregator_selector(job: FederatedIncrementalJob) -> dict[str, str]:
    """Return what selects the aggregator's pod, and none of a deleted job of the same name."""
    found = labels(job, Role.AGGREGATOR)
    return {str(key): found[key] for key in (Label.JOB, Label.JOB_UID, Label.ROLE)}


def metadata(job: FederatedIncrementalJob, name: str, role: Role, group: str = "") -> Object:
    """Return the metadata of the child `name`.

    The owner is the job, so that the garbage collector removes the child with it; `blockOwnerDeletion` would
    need the right to update finalizers and is not wanted: nothing has to wait for a child.
    """
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels(job, role, group),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
