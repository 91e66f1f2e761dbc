"""A job that has not started: is it valid, can it be placed, and then its first objects.

An invalid job shows phase Failed with reason InvalidSpec, so that `kubectl wait --for=condition=Failed` ends.
It is not terminal: nothing has started, `completionTime` stays unset, and a mended file that is applied again
goes on. A job that is created suspended is validated and makes nothing: all its fields can still be edited.
"""

from __future__ import annotations

from datetime import datetime

from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob
from engram.spec.loader import parse_job
from engram.spec.names import Reason
from engram_operator.manifests import (
    Context,
    EndpointUnknown,
    build_children,
    endpoints_of,
    with_checkpoint,
)
from engram_operator.manifests.names import credentials_name, node_port_name
from engram_operator.model import Credentials, Object, Observed, Plan
from engram_operator.reconcile.accept import acceptance
from engram_operator.reconcile.children import first_objects
from engram_operator.reconcile.outcome import with_status
from engram_operator.settings import Settings
from engram_operator.status import Content, Statement, Statements
from engram_operator.status.finding import CREDENTIALS, Finding, by_severity
from engram_operator.status.refusals import explain_refusal
from engram_operator.status.standing import coming, held, invalid, refused, resting

LOOK_AGAIN = 30.0
"""Seconds after which an obstacle that no watch shows is looked at again."""
SOON = 0.2
"""Seconds after which what was just made is looked at."""


def plan_before(
    raw: Object, credentials: Credentials | None, observed: Observed, settings: Settings, now: datetime
) -> Plan:
    """Return how the job starts, or why it cannot."""
    try:
        job = parse_job(raw)
    except ConfigurationError as error:
        return _say(raw, invalid(str(error)), now)
    job = with_checkpoint(job, settings.checkpoint_size, settings.checkpoint_storage_class)
    accepted = acceptance(raw, job)
    if not observed.complete:
        return Plan(wake_after=LOOK_AGAIN)
    obstacle = _obstacle(job, observed)
    if obstacle is not None:
        return _say(raw, obstacle, now, LOOK_AGAIN)
    if credentials is None:
        name = credentials_name(job.name)
        lost = Finding(
            Reason.CREDENTIALS_LOST, f"Secret {name} holds no credentials of ours: delete it", CREDENTIALS
        )
        return _say(raw, held(accepted, lost), now, LOOK_AGAIN)
    return _start(raw, job, accepted, credentials, observed, settings, now)


def _start(
    raw: Object,
    job: FederatedIncrementalJob,
    accepted: Statement,
    credentials: Credentials,
    observed: Observed,
    settings: Settings,
    now: datetime,
) -> Plan:
    """Return the first objects, with the status that says so."""
    try:
        services = build_children(job, Context(settings, credentials, ())).services
        if job.spec.suspend:
            message = "spec.suspend is true: nothing is made before it is false."
            return _say(raw, resting(accepted, message), now)
        service = observed.objects.get(f"Service/{node_port_name(job.name)}")
        endpoints = endpoints_of(job, service, observed.nodes, settings)
        children = build_children(job, Context(settings, credentials, endpoints))
    except EndpointUnknown as error:
        return _say(raw, refused(Reason.ENDPOINT_UNKNOWN, str(error)), now, LOOK_AGAIN)
    except ConfigurationError as error:
        return _say(raw, invalid(str(error)), now)
    refusals = by_severity(explain_refusal(text, name) for name, text in observed.refusals.items())
    plan = (
        first_objects(children, observed)
        if endpoints
        # Kubernetes chooses the node port: the Services first, the rest when it is known.
        else Plan(apply=services, wake_after=SOON)
    )
    if refusals:
        statements = _not_made(accepted, refusals[0])
        return with_status(plan, raw, statements, Content(), now)
    if not endpoints:
        return with_status(plan, raw, coming(accepted), Content(), now)
    replicas = sum(group.replicas for group in job.spec.workers)
    content = Content(
        started=now,
        display={"workers": f"0/{replicas}"},
        aggregator={"endpoint": endpoints[0], "state": "Pending", "restarts": 0},
        workers={"desired": replicas, "running": 0, "failed": 0},
    )
    return with_status(plan, raw, coming(accepted), content, now)


def _obstacle(job: FederatedIncrementalJob, observed: Observed) -> Statements | None:
    """Return what keeps a valid job from starting; None: nothing."""
    if observed.namespace_terminating:
        return refused(
            Reason.NAMESPACE_TERMINATING,
            f"namespace {job.metadata.namespace} is being deleted and takes no new objects: apply the job in "
            "another namespace",
        )
    if observed.foreign:
        names = ", ".join(sorted(observed.foreign)[:5])
        return refused(
            Reason.NAME_CONFLICT,
            f"{names} of this namespace is not this job's and is left alone: rename the job, or remove that "
            "object",
        )
    return None


def _not_made(accepted: Statement, finding: Finding) -> Statements:
    """The API server refuses an object: what it finds invalid is an invalid job."""
    if finding.reason is Reason.INVALID_SPEC:
        return invalid(finding.message)
    return held(accepted, finding)


def _say(raw: Object, statements: Statements, now: datetime, wake: float | None = None) -> Plan:
    return with_status(Plan(wake_after=wake), raw, statements, Content(), now)
