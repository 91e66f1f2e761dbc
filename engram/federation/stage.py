"""What a run waits for at one moment: who is asked, who has answered, and until when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from engram.federation.actions import Action, SendConsolidate, SendEvaluate, SendTrain
from engram.federation.pace import Pace
from engram.federation.plan import Plan

Asking: TypeAlias = Literal["round", "consolidate", "evaluate"]


@dataclass
class Stage:
    """A stage that is open."""

    kind: Literal["gather"] | Asking
    task: int
    round: int
    asked: set[str]
    opened: float
    deadline: float
    """When it may close below all; earlier where the plan has a straggler factor and the quorum is in."""
    answered: set[str] = field(default_factory=set)
    """Those asked whose answer is in; while gathering, those connected."""
    enough: int | None = None
    """Answers that close it at once; None: those of all who are asked."""
    degraded: bool = False
    begun: bool = False
    """Whether its orders have been handed out; `opened` and what follows from it move to that moment."""
    pace: Pace = field(default_factory=Pace)

    def begin(self, now: float) -> bool:
        """Let the time of the stage run from `now`, once; return whether it was not running yet."""
        if self.begun:
            return False
        later = now - self.opened
        self.begun, self.opened, self.deadline = True, now, self.deadline + later
        self.pace.put_off(later)
        return True

    @property
    def wanted(self) -> int:
        """How many answers close the stage at once."""
        return len(self.asked) if self.enough is None else min(self.enough, len(self.asked))

    def needed(self, plan: Plan) -> int:
        """Return how many answers the stage needs at its deadline."""
        if self.kind == "gather" and plan.elastic:
            return 1
        return plan.quorum.of(self.wanted)

    def closes(self, plan: Plan, before: tuple[float, ...]) -> float:
        """Return when the stage closes below all, as it stands; `before`: the pace of earlier rounds.

        Only rounds hurry. A task's end and an evaluation are asked for once, and what a worker did not send
        there is missing in the model or the result for good.
        """
        if plan.straggler_factor is None or self.kind != "round" or len(self.answered) < self.needed(plan):
            return self.deadline
        patience = self.pace.patience(plan.straggler_factor, before)
        return self.deadline if patience is None else min(self.deadline, self.opened + patience)

    def order(self, worker: str) -> Action:
        """Return what asks `worker` for its part."""
        if self.kind == "round":
            return SendTrain(worker, self.task, self.round)
        if self.kind == "consolidate":
            return SendConsolidate(worker, self.task)
        return SendEvaluate(worker, self.task, self.round)

    def shortage(self, plan: Plan, missing: tuple[str, ...]) -> str:
        """Return what to say of a stage that is below its quorum at the deadline."""
        what = {
            "gather": "the start",
            "round": f"round {self.round} of task {self.task}",
            "consolidate": f"the end of task {self.task}",
        }.get(self.kind, f"the evaluation of task {self.task}")
        return (
            f"{what}: {len(self.answered)} of {self.needed(plan)} workers at the deadline of "
            f"{plan.deadline_seconds:g} s, missing {', '.join(missing) or 'all'}; raise "
            "spec.aggregation.roundDeadlineSeconds, lower quorum, or set deadlinePolicy: Wait"
        )
