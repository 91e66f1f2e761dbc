"""The run's own figures in a status: from the live status, from the final summary, or kept from before.

What a pod says is not trusted to be well-formed: a part that the API server would refuse is left out, since
a status that cannot be written would hide everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from engram.spec.base import Spec
from engram.spec.names import Stage, WorkerCondition
from engram.spec.status import (
    Display,
    MetricsStatus,
    ProgressStatus,
    TaskStatus,
    WorkersStatus,
    WorkerStatus,
)
from engram.spec.summary import FinalSummary
from engram_operator.model import Live, Object
from engram_operator.status.memory_use import known_peaks
from engram_operator.status.rejections import Refused, recently_refused
from engram_operator.status.said import whole

MOST_TASKS = 100
MOST_CLASSES = 10
"""Classes of a task that status lists."""

CONNECTED = frozenset({WorkerCondition.CONNECTED, WorkerCondition.TRAINING, WorkerCondition.UPLOADING})


@dataclass(frozen=True)
class Figures:
    """Parts of `status` that the run itself reports, in the API's shape."""

    display: Object = field(default_factory=dict)
    progress: Object = field(default_factory=dict)
    metrics: Object = field(default_factory=dict)
    tasks: tuple[Object, ...] = ()
    counts: Object = field(default_factory=dict)
    """Of `status.workers`: connected, disconnected."""
    workers: Mapping[str, Object] = field(default_factory=dict)
    """`status.workerStatuses` by name, as the aggregator sees them now; empty when it was not asked."""
    refused: Mapping[str, Refused] = field(default_factory=dict)
    """Workers whose answers the aggregator turned down of late."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Most bytes that the aggregator (by `AGGREGATOR`) and each worker are known to have used."""
    resumes: int = 0
    consolidating: bool = False
    """Whether the aggregator says that a task is being closed."""
    live: bool = False
    """Whether the aggregator was heard just now."""
    ended: bool = False
    """Whether the aggregator says, or said at its end, that the run is over."""

    @property
    def started(self) -> bool:
        """Whether a round has begun."""
        return bool(self.progress.get("round"))

    @property
    def connected(self) -> int:
        """Workers that the aggregator hears from."""
        return int(self.counts.get("connected") or 0)


def figures_of(
    old: Mapping[str, Any], live: Live | None = None, summary: FinalSummary | None = None
) -> Figures:
    """Return the figures of the summary if the run is over, else the live ones, else those of `old`."""
    kept = Figures(
        display=dict(old.get("display") or {}),
        progress=dict(old.get("progress") or {}),
        metrics=dict(old.get("metrics") or {}),
        tasks=tuple(old.get("tasks") or ()),
        memory=known_peaks(old, live),
        resumes=int(old.get("resumes") or 0),
    )
    if summary is not None:
        return replace(_merged(kept, summary.dump(), whole(summary.resumes)), ended=True)
    if live is None:
        return kept
    faults = live.status.get("faults")
    resumes = whole(faults.get("resumes")) if isinstance(faults, Mapping) else 0
    found = _merged(kept, live.status, resumes)
    names = {item["name"]: item for item in _list(WorkerStatus, live.status.get("workerStatuses"))}
    return Figures(
        display=found.display,
        progress=found.progress,
        metrics=found.metrics,
        tasks=found.tasks,
        memory=kept.memory,
        counts=_part(WorkersStatus, live.status.get("workers")),
        workers=names,
        refused=recently_refused(live.status.get("workerStatuses"), found.progress.get("round") or 0),
        resumes=found.resumes,
        consolidating=live.status.get("stage") == Stage.CONSOLIDATING,
        live=True,
        ended=live.status.get("phase") in ("Succeeded", "Failed", "Suspended"),
    )


def _merged(kept: Figures, said: Mapping[str, Any], resumes: int) -> Figures:
    """Return what was said, and what was known before where nothing was said."""
    return Figures(
        display=_part(Display, said.get("display")) or kept.display,
        progress=_part(ProgressStatus, said.get("progress")) or kept.progress,
        metrics=_part(MetricsStatus, said.get("metrics")) or kept.metrics,
        tasks=_tasks(said.get("tasks")) or kept.tasks,
        memory=kept.memory,
        counts=_part(WorkersStatus, said.get("workers")),
        resumes=max(kept.resumes, resumes),
    )


def _tasks(said: object) -> tuple[Object, ...]:
    """Return the newest tasks, each once, with the first of their classes."""
    items = said if isinstance(said, list) else []
    short = [
        {**item, "classes": item["classes"][:MOST_CLASSES]} if isinstance(item.get("classes"), list) else item
        for item in items
        if isinstance(item, Mapping)
    ]
    once = {task["index"]: task for task in _list(TaskStatus, short)}
    return tuple(once.values())[-MOST_TASKS:]


def _list(model: type[Spec], said: object) -> list[Object]:
    found: Iterable[Any] = said if isinstance(said, list) else ()
    return [part for item in found if (part := _part(model, item, whole=True))]


def _part(model: type[Spec], said: object, *, whole: bool = False) -> Object:
    """Return the fields of `said` that the type has and the API server takes.

    `whole`: an item of a list, which is left out altogether when a field that it needs is wrong.
    """
    if not isinstance(said, Mapping):
        return {}
    known = {info.alias or name for name, info in model.model_fields.items()}
    content = {key: value for key, value in said.items() if key in known and value is not None}
    try:
        valid = model.model_validate(content, strict=False)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        content = {key: value for key, value in content.items() if key not in wrong}
        try:
            valid = model.model_validate(content)
        except ValidationError:
            return {}
    dumped = valid.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return dumped if not whole or dumped else {}
