"""A worker's side of the conversation: a message in, messages out. It knows no socket and no clock.

It keeps the answer to its last order, so that an answer lost with a connection or an aggregator is sent again
instead of computed again, and takes over the state that the aggregator kept for it.
"""

from __future__ import annotations

import traceback
from dataclasses import replace

from engram.errors import ConfigurationError, EngramError, RefusedError
from engram.federation.compression.packer import Packer
from engram.federation.messages import (
    Consolidate,
    Consolidated,
    Down,
    Evaluate,
    Evaluation,
    Finish,
    Hello,
    LabelCounts,
    Log,
    Reject,
    Train,
    Up,
    Update,
    Welcome,
)
from engram.federation.roles import LocalLearner, Progress
from engram.federation.settings import STATE_BYTES
from engram.federation.tensors import same_tensors
from engram.federation.versions import PROTOCOL

TRACEBACK_CHARACTERS = 4000
"""What the aggregator's log shows of a worker's crash."""


class WorkerSession:
    """One worker process's conversation with the aggregator, over all of its connections."""

    def __init__(
        self,
        learner: LocalLearner,
        worker: str,
        job_digest: str,
        attempt: int = 0,
        labels: LabelCounts | None = None,
        remark: str = "",
        packer: Packer | None = None,
    ) -> None:
        """`packer` packs updates where the job compresses them."""
        self.worker = worker
        self.finish: Finish | None = None
        """Set when the aggregator has ended the run."""
        self.rejections: list[Reject] = []
        """What the aggregator did not accept, oldest first."""
        self._learner = learner
        self._job_digest = job_digest
        self._attempt = attempt
        self._labels = labels or LabelCounts()
        self._packer = packer
        self._remark, self._trouble, self._endpoint = remark, "", ""
        self._state: bytes | None = None
        self._before: bytes | None = None
        """The state before the last consolidation."""
        self._order: Train | Consolidate | None = None
        self._answer: Update | Consolidated | None = None

    @property
    def holds(self) -> tuple[int, int] | None:
        """(task, round) of the order that is answered or being answered; may be read from another thread."""
        order = self._order
        if order is None:
            return None
        return order.task, order.round if isinstance(order, Train) else 0

    def came(self, endpoint: str, trouble: str) -> None:
        """Note by which endpoint the next hello goes, and what is wrong with the others."""
        self._endpoint, self._trouble = endpoint, trouble

    def hello(self) -> Hello:
        """Return what to say first on a new connection."""
        return Hello(
            worker=self.worker,
            attempt=self._attempt,
            protocol=PROTOCOL,
            job_digest=self._job_digest,
            split_digest=self._learner.split_digest,
            samples=self._learner.samples,
            device=self._learner.device,
            holds=self.holds,
            labels=self._labels,
            endpoint=self._endpoint,
            trouble="; ".join(filter(None, (self._remark, self._trouble))),
        )

    def receive(self, message: Down, progress: Progress) -> list[Up]:
        """Do what a message asks and return what to send.

        Raises RefusedError when the aggregator refuses this worker, and whatever the learner raises.
        """
        match message:
            case Welcome():
                return self._welcome(message)
            case Train():
                return [self._train(message, progress)]
            case Consolidate():
                return [self._consolidate(message)]
            case Evaluate():
                counts = self._learner.evaluate(message)
                return [Evaluation(message.task, message.round, counts)]
            case Finish():
                if message.reason == "refused":
                    raise RefusedError(message.message)
                self.finish = message
            case Reject():
                self.rejections.append(message)
            case _:
                pass
        return []

    def _welcome(self, welcome: Welcome) -> list[Up]:
        if welcome.state != self._state and not self._is_ahead(welcome):
            # A new process, or an aggregator that fell back to an older checkpoint: what is held is void.
            self._learner.restore(welcome.state)
            self._state, self._order, self._answer = welcome.state, None, None
        if not welcome.resend:
            return []
        if self._answer is None or self.holds != (welcome.task, welcome.round):
            return [self.hello()]
        return [self._answer]

    def _is_ahead(self, welcome: Welcome) -> bool:
        """Return whether the aggregator only lacks the consolidation that is held."""
        return (
            isinstance(self._answer, Consolidated)
            and self.holds == (welcome.task, welcome.round)
            and welcome.state == self._before
        )

    def _train(self, order: Train, progress: Progress) -> Update:
        last, answer = self._order, self._answer
        if (
            isinstance(answer, Update)
            and isinstance(last, Train)
            and (last.task, last.round, last.counted) == (order.task, order.round, order.counted)
            and same_tensors(last.weights, order.weights)
        ):
            return answer
        self._order, self._answer = order, None
        update = replace(self._learner.train(order, progress), task=order.task, round=order.round)
        self._answer = update if self._packer is None else self._packer.pack(update, order)
        return self._answer

    def _consolidate(self, order: Consolidate) -> Consolidated:
        self._order, self._answer = order, None
        result = replace(self._learner.consolidate(order), task=order.task)
        if len(result.state) > STATE_BYTES:
            raise ConfigurationError(
                f"{self.worker} would keep a state of {len(result.state)} bytes at the end of task "
                f"{order.task}, at most {STATE_BYTES} are kept",
                field="spec.algorithm.parameters",
                remedy="keep fewer exemplars, or let the algorithm's state be smaller",
            )
        self._before, self._state, self._answer = self._state, result.state, result
        return result


def failure_of(error: BaseException) -> Log:
    """Return what a worker reports before it ends with `error`.

    The first line is the sentence; the traceback of a crash follows, its end if it is long.
    """
    if isinstance(error, EngramError):
        return Log(str(error), error.exit_code, error.reason)
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:].rstrip()
    return Log(f"{type(error).__name__}: {error}\n{trace}", 1)
