"""Writes what is left of a run: `record.json`, `matrix.json`, the resolved job file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from engram.errors import CheckpointError
from engram.federation.history import History, TaskRow
from engram.federation.messages import Hello
from engram.federation.outcome import Outcome
from engram.metrics.matrix import from_history
from engram.report.record import Cost, Environment, Record
from engram.run.composition import Composition
from engram.run.directory import RunDirectory, write_text
from engram.run.facts import cost, dataset_facts, split_facts, warnings, worker_facts
from engram.run.observers import Silent
from engram.spec.yaml_text import dump_yaml

Status = Literal["complete", "failed", "interrupted", "running"]

STATUS_OF: Mapping[str, Status] = {"complete": "complete", "failed": "failed", "suspended": "interrupted"}
"""A record's status by the reason of an Outcome."""


def now() -> str:
    """Return the time as ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Recorder:
    """Builds the record of one run from its composition and its history."""

    composition: Composition
    environment: Environment
    started: str = field(default_factory=now)
    hellos: dict[str, Hello] = field(default_factory=dict)
    """What each worker last said of itself: its device, and what it owns with partition local."""

    def record(
        self, history: History, status: Status, message: str = "", run_cost: Cost | None = None
    ) -> Record:
        """Return the record as of now."""
        composition = self.composition
        return Record(
            status=status,
            message=message,
            job=composition.job.dump(),
            job_digest=composition.job.digest(),
            classes=[list(plan.classes) for plan in composition.plans],
            dataset=dataset_facts(composition),
            split=split_facts(composition, self.hellos),
            environment=self.environment,
            workers=worker_facts(composition, self.hellos),
            history=history,
            cost=run_cost or cost(history, 0, None),
            started=self.started,
            completed=None if status == "running" else now(),
            notes=warnings(composition, self.hellos),
        )

    def of_outcome(self, outcome: Outcome) -> Record:
        """Return the record of a run that ended."""
        parameters = sum(int(tensor.size) for tensor in outcome.weights.values())
        return self.record(
            outcome.history,
            STATUS_OF[outcome.reason],
            outcome.message,
            cost(outcome.history, parameters, None),
        )


class Keeper(Silent):
    """Writes the record after every task, so that a run that is killed leaves what it had reached; notes what
    workers say of themselves.
    """

    def __init__(self, recorder: Recorder, directory: RunDirectory) -> None:
        self._recorder, self._directory = recorder, directory

    def introduced(self, worker: str, hello: Hello) -> None:
        """Keep it for the record."""
        self._recorder.hellos[worker] = hello

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Write record and matrix; a full disk here is reported by the checkpoint that follows."""
        try:
            write_record(self._directory, self._recorder.record(history, "running"))
        except CheckpointError:
            return


def write_record(directory: RunDirectory, record: Record) -> None:
    """Write `record.json`, and `matrix.json` once a task is finished."""
    write_text(directory.record, record_text(record))
    matrix = from_history(record.classes, record.history)
    if matrix.tasks:
        write_text(directory.matrix, json.dumps(matrix.dump(), indent=2) + "\n")


def record_text(record: Record) -> str:
    """Return the content of `record.json`."""
    return record.model_dump_json(by_alias=True, indent=1) + "\n"


def write_job(path: Path, document: Mapping[str, Any]) -> None:
    """Write a job file with every default filled in."""
    head = "# The job as it ran, every default filled in. Run it again: engram run job.yaml\n"
    write_text(path, head + dump_yaml(dict(document)))
