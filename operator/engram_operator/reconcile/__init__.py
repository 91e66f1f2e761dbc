"""Pure: (job, its children, the time) -> what to do. The whole behaviour of the operator is decided here.

Level-based: nothing but the arguments is looked at, and any intermediate state that a crash leaves leads to
the same end. `before` speaks of jobs that have not started, `under_way` of those that run or rest, `after` of
those that have ended, `leaving` of those that are deleted.

A job has started once `status.startTime` is set or one of its batch Jobs exists: from then on what it was
started with counts (ConfigMap `<job>-spec`), and typed fields are protected by the CRD. Objects are written
before the status that tells of them, so a crash in between is seen as a job that has started.
"""

from __future__ import annotations

from datetime import datetime

from engram.spec.names import OPERATOR
from engram_operator.model import Credentials, Object, Observed, Plan
from engram_operator.reconcile.after import plan_after
from engram_operator.reconcile.before import plan_before
from engram_operator.reconcile.leaving import plan_leaving
from engram_operator.reconcile.under_way import plan_under_way
from engram_operator.settings import Settings

__all__ = ["reconcile"]


def reconcile(
    raw: Object, credentials: Credentials | None, observed: Observed, settings: Settings, now: datetime
) -> Plan:
    """Return what brings the job `raw` from what was observed to what it asks for.

    Args:
        raw: the FederatedIncrementalJob as the API server sends it.
        credentials: read from the Secret, or fresh ones where the Secret does not exist; None when objects
            were not read, or the Secret is unusable.
        observed: the job's children.
        settings: of the operator.
        now: the time.

    A job with another `spec.managedBy` gets an empty plan: not even a status. For one that is being deleted
    nothing is made or removed any more.
    """
    status = raw.get("status") or {}
    if (raw.get("spec") or {}).get("managedBy", OPERATOR) != OPERATOR:
        return Plan()
    if raw["metadata"].get("deletionTimestamp"):
        return plan_leaving(raw, observed, now)
    if status.get("completionTime"):
        return plan_after(raw, observed, settings, now)
    if status.get("startTime") or observed.jobs:
        return plan_under_way(raw, credentials, observed, settings, now)
    return plan_before(raw, credentials, observed, settings, now)
