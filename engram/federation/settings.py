"""What the federation needs to know of a job, as one frozen value read in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engram.federation.compression.arrays import Method, method_of
from engram.federation.plan import Plan
from engram.federation.sampling import Quorum
from engram.spec import FederatedIncrementalJob, aggregation_parameters
from engram.spec.base import Spec
from engram.spec.names import split_worker_name
from engram.spec.training import Aggregation, Evaluation

STATE_BYTES = 256 * 1024
"""Largest state blob that a worker may leave with the aggregator at a task's end."""

SMALLEST_WHOLE, LARGEST_WHOLE = 16 * 1024, 256 * 1024
"""Bounds of a message that needs no credit, in bytes; heartbeats and greetings always fit."""


@dataclass(frozen=True)
class Settings:
    """Everything of a job that aggregator and transports act on."""

    job_digest: str
    seed: int
    workers: tuple[str, ...]
    """Names of the workers that the job starts with, in file order."""
    rounds: tuple[int, ...]
    """Rounds of each task; `rounds[t - 1]` of task t."""
    aggregation: Aggregation = field(default_factory=Aggregation)
    aggregation_parameters: Spec | dict[str, Any] = field(default_factory=dict)
    """Parsed for a built-in rule, the plain mapping for one of the user's own."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    elastic: bool = False
    """Workers beyond `workers` may join (partition local)."""
    consolidates: bool = True
    """Workers are asked at the end of a task; Sedna's know no tasks."""
    take_turns: bool = False
    """Workers train one after the other, so that the time they take says nothing: none of them is late."""
    groups: tuple[str, ...] = ()
    """Names of the worker groups that may grow when `elastic`."""
    heartbeat_seconds: float = 10.0
    """Workers send a sign of life so often; three missed ones show a worker as disconnected."""
    tick_seconds: float = 0.5
    """How often the aggregator looks at the clock while nothing else happens."""
    hello_seconds: float = 10.0
    """How long a new connection may take to say hello."""
    linger_seconds: float = 5.0
    """How long the aggregator waits at the end for workers that are just reconnecting, to tell them."""
    staging_slots: int = 2
    """Large answers that may be on their way to the aggregator at once, whatever their size."""
    staging_bytes: int = 16 * 1024 * 1024
    """Memory for answers on their way: small ones share it beyond the slots."""
    stall_seconds: float = 30.0
    """A large answer of which nothing comes for so long makes way for one that waits."""
    message_slack_bytes: int = 16 * 1024 * 1024
    """Room in a message beside three models and an update: header, results of consolidation, a grown head."""

    @classmethod
    def from_job(cls, job: FederatedIncrementalJob, rounds: Sequence[int]) -> Settings:
        """Return the settings of `job`, whose task t has `rounds[t - 1]` rounds.

        Raises ConfigurationError when the aggregation's parameters are not valid.
        """
        spec = job.spec
        return cls(
            job_digest=job.digest(),
            seed=spec.seed,
            workers=tuple(worker.name for worker in job.workers()),
            rounds=tuple(rounds),
            aggregation=spec.aggregation,
            aggregation_parameters=aggregation_parameters(job),
            evaluation=spec.evaluation,
            elastic=spec.dataset.partition.method == "local" and spec.protocol != "sedna",
            consolidates=spec.protocol != "sedna",
            groups=tuple(group.name for group in spec.workers),
        )

    def plan(self) -> Plan:
        """Return what the round machine needs of these settings."""
        aggregation = self.aggregation
        return Plan(
            workers=self.workers,
            rounds=self.rounds,
            seed=self.seed,
            client_fraction=aggregation.client_fraction,
            quorum=Quorum.parse(aggregation.quorum),
            deadline_seconds=float(aggregation.round_deadline_seconds),
            deadline_policy=aggregation.deadline_policy,
            straggler_factor=None if self.take_turns else aggregation.straggler_factor,
            buffer=aggregation.buffer.size,
            max_staleness=aggregation.buffer.max_staleness,
            evaluate_on_workers=self.evaluation.location == "workers",
            evaluate_every_round=self.evaluation.every == "round",
            elastic=self.elastic,
            consolidates=self.consolidates,
        )

    @property
    def method(self) -> Method | None:
        """How changes of the model are packed; None: weights go as they are."""
        aggregation = self.aggregation
        if aggregation.compression == "none":
            return None
        return method_of(aggregation.compression, aggregation.topk_share)

    @property
    def whole_bytes(self) -> int:
        """Size up to which a worker may send a message whole and unasked: it waits at the gate, if at all."""
        return max(SMALLEST_WHOLE, min(self.staging_bytes, LARGEST_WHOLE))

    def may_join(self, worker: str) -> bool:
        """Return whether a worker of this name belongs to the job, newcomers of elastic groups included."""
        if worker in self.workers:
            return True
        named = split_worker_name(worker)
        return self.elastic and named is not None and named[0] in self.groups
