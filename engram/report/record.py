"""The record of a run, `record.json` in a run directory: the one file that every number of a report comes
from.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engram.federation.history import History


class Part(BaseModel):
    """Base of the record's parts."""

    model_config = ConfigDict(extra="forbid")


class DatasetFacts(Part):
    """What data the run used."""

    name: str
    sha256: str
    """Of the arrays or the file list as read; equal data give equal digests on every machine."""
    train_samples: int
    test_samples: int
    shape: tuple[int, int, int]
    """Channels, height, width."""
    class_names: list[str]


class SplitFacts(Part):
    """Who held what, and when classes appeared."""

    digest: str
    tasks: list[list[int]]
    """Label ids of each task in learning order, as the split has them (joint upfront trains them all from
    round 1)."""
    test_counts: dict[int, int]
    labelled: dict[str, dict[int, int]]
    """worker -> label id -> labelled samples."""
    unlabelled: dict[str, dict[int, int]]


class Environment(Part):
    """Where and with what the run was made."""

    engram: str
    python: str
    torch: str
    numpy: str
    platform: str
    cpu: str
    cores: int
    transport: str
    batched: bool = False
    """Workers were trained together: close to the results of a run without, but not bit for bit."""
    command: str
    images: dict[str, str] = Field(default_factory=dict)


class WorkerFacts(Part):
    """One worker."""

    name: str
    group: str
    device: str = ""
    samples: int = 0
    restarts: int = 0


class Cost(Part):
    """What the run cost."""

    seconds: float = 0.0
    """Wall time from the first round's start to the end, over restarts."""
    cpu_seconds: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    parameters: int = 0
    """Parameters of the final model."""
    local_steps: int = 0


class Record(Part):
    """A run."""

    schema_: Literal["engram.record/v1"] = Field("engram.record/v1", alias="schema")
    status: Literal["complete", "failed", "interrupted", "running"]
    message: str = ""
    job: dict[str, Any]
    """The resolved job file."""
    job_digest: str
    classes: list[list[int]]
    """Label ids of each trained task: rows of the matrix (one task of all classes for joint upfront)."""
    dataset: DatasetFacts
    split: SplitFacts
    environment: Environment
    workers: list[WorkerFacts]
    history: History
    cost: Cost
    started: str
    """ISO 8601, UTC."""
    completed: str | None = None
    notes: list[str] = Field(default_factory=list)
    """Warnings a reader must see: an empty worker, an exemplar budget that holds most labels."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
