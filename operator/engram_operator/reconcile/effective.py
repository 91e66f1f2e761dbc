"""Which spec holds for a job that has started: what it was started with, and of the present one what may
change.

Kubernetes protects typed fields (CEL); parameters, volumes and podTemplate it cannot see. So the ConfigMap
`<job>-spec` says what holds, and what was edited later is ignored, and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob
from engram.spec.loader import parse_job
from engram.spec.names import Condition, Reason
from engram_operator.manifests import as_started, started_job, with_checkpoint
from engram_operator.manifests.names import checkpoint_name, spec_name
from engram_operator.model import Object, Observed
from engram_operator.status import Statement, view

_NOTICES = frozenset({Reason.SPEC_CHANGE_IGNORED, Reason.SCALE_REFUSED})


@dataclass(frozen=True)
class Effective:
    """What holds for a run."""

    job: FederatedIncrementalJob
    """What the ConfigMap holds: replicas are those that the split was computed over."""
    replicas: Mapping[str, int]
    """Worker group -> workers wanted now."""
    suspend: bool
    """What `spec.suspend` asks for."""
    notice: Statement | None = None
    """What was asked and is not done."""

    @property
    def desired(self) -> int:
        """Workers of all groups."""
        return sum(self.replicas.values())


def effective(raw: Object, observed: Observed) -> Effective | None:
    """Return what holds; None: the present spec is invalid and what the job started with is not known."""
    present, problem = _present(raw)
    config = observed.objects.get(f"ConfigMap/{spec_name(raw['metadata']['name'])}")
    started = started_job(config)
    notice: Statement | None = None
    if started is None:
        present = present or _typed(raw)
        return None if present is None else _as_it_is(raw, present, observed)
    if present is None:
        present = started
        notice = _ignored(f"The present spec is invalid and not used: {problem}")
    else:
        present, edited = as_started(present, config or {})
        notice = _ignored() if edited else None
    replicas, refused = _scaled(raw, started)
    if present.spec.dataset.partition.method != "local":
        present = _with_replicas(present, {group.name: group.replicas for group in started.spec.workers})
    else:
        present = _with_replicas(present, replicas)
    return Effective(_awake(present), replicas, _suspend(raw), refused or notice)


def _present(raw: Object) -> tuple[FederatedIncrementalJob | None, str]:
    try:
        return parse_job(raw), ""
    except ConfigurationError as error:
        return None, str(error)


def _typed(raw: Object) -> FederatedIncrementalJob | None:
    """Return a job whose types hold, as the API server has seen to, though rules that span fields may not."""
    content = {key: value for key, value in raw.items() if key != "status"}
    try:
        return FederatedIncrementalJob.model_validate_json(json.dumps(content))
    except ValidationError:
        return None


def _as_it_is(raw: Object, present: FederatedIncrementalJob, observed: Observed) -> Effective:
    """Take the present spec where the ConfigMap is lost; batch Jobs say how many workers there are, and a
    claim that there is one.
    """
    name = present.name
    claim = observed.objects.get(f"PersistentVolumeClaim/{checkpoint_name(name)}")
    if claim is not None:
        wanted = claim.get("spec") or {}
        size = ((wanted.get("resources") or {}).get("requests") or {}).get("storage") or ""
        present = with_checkpoint(present, str(size), str(wanted.get("storageClassName") or ""))
    replicas = {}
    for group in present.spec.workers:
        found = observed.jobs.get(f"{name}-{group.name}")
        replicas[group.name] = found.completions if found else group.replicas
    accepted = view(raw.get("status") or {}, Condition.ACCEPTED)
    notice = None
    if accepted is not None and accepted.reason in _NOTICES and not observed.complete:
        notice = Statement(True, Reason(accepted.reason), accepted.message)
    return Effective(_awake(present), replicas, _suspend(raw), notice)


def _scaled(raw: Object, started: FederatedIncrementalJob) -> tuple[dict[str, int], Statement | None]:
    """Return the workers wanted of each group, and what of it is refused."""
    asked = {
        group.get("name"): group.get("replicas") for group in (raw.get("spec") or {}).get("workers") or ()
    }
    replicas: dict[str, int] = {}
    refused: Statement | None = None
    for group in started.spec.workers:
        want = asked.get(group.name)
        want = want if isinstance(want, int) and want >= 1 else group.replicas
        replicas[group.name], problem = _allowed(group.name, want, group.replicas, started)
        if problem:
            refused = refused or Statement(True, Reason.SCALE_REFUSED, problem)
    return replicas, refused


def _allowed(name: str, want: int, start: int, started: FederatedIncrementalJob) -> tuple[int, str]:
    """Return the replicas that a group of `start` workers may have, and the sentence when that is not
    `want`.
    """
    if want == start:
        return want, ""
    field = f"spec.workers[{name}].replicas"
    if started.spec.protocol == "sedna":
        return start, (
            f"{field}: {want} is refused: Sedna's protocol fixes the number of workers at the start; the run "
            f"goes on with {start}"
        )
    if want > start and started.spec.dataset.partition.method != "local":
        return start, (
            f"{field}: {want} is refused: the split is computed over the {start} workers at the start; the "
            f"run goes on with {start}. Write at most {start}, or start a new job (partition.method local "
            "grows)"
        )
    return want, ""


def _with_replicas(job: FederatedIncrementalJob, replicas: Mapping[str, int]) -> FederatedIncrementalJob:
    workers = [
        group.model_copy(update={"replicas": replicas.get(group.name, group.replicas)})
        for group in job.spec.workers
    ]
    return job.model_copy(update={"spec": job.spec.model_copy(update={"workers": workers})})


def _awake(job: FederatedIncrementalJob) -> FederatedIncrementalJob:
    """Leave suspension to patches: a batch Job is made when it shall run."""
    return job.model_copy(update={"spec": job.spec.model_copy(update={"suspend": False})})


def _suspend(raw: Object) -> bool:
    return bool((raw.get("spec") or {}).get("suspend"))


def _ignored(cause: str = "") -> Statement:
    text = cause or (
        "The spec was edited in a part that cannot change while the job runs (parameters, volume, "
        "podTemplate, resources)"
    )
    return Statement(
        True,
        Reason.SPEC_CHANGE_IGNORED,
        f"{text.rstrip('.')}; the run goes on with what it started with. Restore the file, or delete the "
        "job and apply it anew.",
    )
