"""What aggregator and workers say to each other, as values; `codec` turns them into bytes and back.

Tasks count from 1; rounds count from 1 within their task. Tensors are named little-endian numpy arrays.
`Shared` tensors are what an algorithm hands to workers beside the weights (a teacher, class means, helper
models): they are named groups, addressed by digest, so that one which a connection has already carried is not
sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from engram import __version__

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays; the order of names is part of the value."""

Shared: TypeAlias = Mapping[str, Tensors]
"""Named groups of arrays that go down beside the weights."""

EMPTY: Tensors = {}


@dataclass(frozen=True)
class LabelCounts:
    """How many samples of each label id a worker holds; empty where everybody computes the same split."""

    labelled: Mapping[int, int] = field(default_factory=dict)
    unlabelled: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Hello:
    """Up, first on every connection."""

    worker: str
    attempt: int
    protocol: int
    job_digest: str
    split_digest: str
    samples: int
    """All training samples that this worker will ever hold; bounds the weights of its updates."""
    device: str = "cpu"
    holds: tuple[int, int] | None = None
    """(task, round) of the order whose answer the worker has ready or is working on, if any; round 0 is
    consolidation."""
    version: str = __version__
    """Of engram, on the worker's side."""
    labels: LabelCounts = field(default_factory=LabelCounts)
    endpoint: str = ""
    """Where the worker reached the aggregator."""
    trouble: str = ""
    """What a person should know: endpoints that it tried in vain before this one, a GPU that is not there."""


@dataclass(frozen=True)
class Welcome:
    """Down, the answer to hello: where the run is, and the worker's state as it was kept at the last task's
    end.
    """

    job_digest: str
    task: int
    round: int
    heartbeat_seconds: float
    state: bytes = b""
    resend: bool = False
    """The answer that hello said the worker holds is still wanted: send it; no other order follows."""
    whole_bytes: int = 256 * 1024
    """A message of up to so many bytes may be sent whole and unasked; a larger one is offered first."""


@dataclass(frozen=True)
class Train:
    """Down: train this round from these weights."""

    task: int
    round: int
    weights: Tensors
    seen: tuple[int, ...]
    """Label ids of all classes seen so far in learning order, the current task's last: row i of the head is
    seen[i]."""
    shared: Shared = field(default_factory=dict)
    counted: tuple[int, int] | None = None
    """(task, round) of this worker's newest update that counts, where it has to know."""


@dataclass(frozen=True)
class Update:
    """Up: the result of one local round. With `samples` 0 the worker took no part and `weights` is empty."""

    task: int
    round: int
    samples: int
    """n_k after the job's `weighting`; the weight of this update in the average."""
    weights: Tensors = field(default_factory=dict)
    """The trained model, or what `engram.federation.compression.changes` packs of its change."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """loss, steps, seconds, labelled, exemplars, unlabelled, pseudo_label_accept_ratio ...: finite numbers.
    """
    info: Tensors = field(default_factory=dict)
    """What the algorithm reports to its aggregator side each round (the seed's train info)."""


@dataclass(frozen=True)
class Consolidate:
    """Down, at the end of a task, to all workers: the final global weights of the task."""

    task: int
    weights: Tensors
    seen: tuple[int, ...]
    shared: Shared = field(default_factory=dict)


@dataclass(frozen=True)
class Consolidated:
    """Up: the algorithm's small results (class sums and counts, Fisher ...) and the worker's state for the
    next task.
    """

    task: int
    samples: int
    results: Tensors = field(default_factory=dict)
    state: bytes = b""
    """At most 256 KiB; kept by the aggregator, handed back in Welcome."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluate:
    """Down, when evaluation is on workers: count right predictions of these weights on the worker's part of
    the test set.
    """

    task: int
    round: int
    weights: Tensors
    seen: tuple[int, ...]
    shared: Shared = field(default_factory=dict)


@dataclass(frozen=True)
class ClassCounts:
    """Right predictions and totals by label id; `unseen` rows are in `right_unseen` (evaluated over all rows
    of the head).
    """

    right: Mapping[int, int]
    total: Mapping[int, int]
    right_unseen: Mapping[int, int] = field(default_factory=dict)
    """Right predictions for classes not yet seen; their totals are in `total` too."""


@dataclass(frozen=True)
class Evaluation:
    """Up: the counts that `Evaluate` asked for."""

    task: int
    round: int
    counts: ClassCounts


@dataclass(frozen=True)
class Heartbeat:
    """Up, every few seconds from a thread that training does not block."""

    state: str
    """training, uploading, idle."""
    progress: float = 0.0
    """Share of the local steps of this round that are done, 0..1."""
    loss: float | None = None
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True)
class Ack:
    """Down: the update (round > 0), or consolidation (round 0), was accepted."""

    task: int
    round: int


@dataclass(frozen=True)
class Reject:
    """Down: it was not accepted, and why. `task` and `round` are where the run is now."""

    reason: str
    """late, duplicate, shape, non-finite, unauthorised, too-large, norm, protocol."""
    message: str
    task: int
    round: int


@dataclass(frozen=True)
class Wait:
    """Down: nothing to do for you now; stay connected."""


@dataclass(frozen=True)
class Offer:
    """Up: an answer is ready that is too large to be sent unasked. A worker offers one at a time."""

    number: int
    """Counts the offers of a connection, from 1."""
    kind: str
    """Update, Consolidated or Evaluation."""
    task: int
    round: int
    size: int
    """Bytes of the whole answer."""


@dataclass(frozen=True)
class Credit:
    """Down: there is room for the offered answer: send its pieces."""

    offer: int
    """The offer's number."""


@dataclass(frozen=True)
class NoCredit:
    """Down: the offered answer has no room here any more. Its worker keeps it until it hears so."""

    offer: int
    again: bool
    """Its pieces came too slowly while others waited: offer it again; else it is in, or not wanted at all."""


@dataclass(frozen=True)
class Log:
    """Up, when a worker fails: why, in its first line, for a crash its traceback, and its exit code."""

    text: str
    exit_code: int
    reason: str = ""
    """As in `engram.errors`; empty: the exit code says enough."""


@dataclass(frozen=True)
class Finish:
    """Down: the run is over. One that is suspended is not: its connections just end."""

    reason: str
    """complete, failed, refused."""
    message: str = ""


Answer: TypeAlias = Update | Consolidated | Evaluation
Up: TypeAlias = Hello | Answer | Heartbeat | Offer | Log
Order: TypeAlias = Train | Consolidate | Evaluate
Down: TypeAlias = Welcome | Order | Ack | Reject | Credit | NoCredit | Wait | Finish
Message: TypeAlias = Up | Down

COUNTED = (Train, Update, Consolidate, Consolidated, Evaluate, Evaluation)
"""Messages whose bytes belong to a round's or task's row."""


class Outgoing(NamedTuple):
    """A message for a worker."""

    worker: str
    message: Down
