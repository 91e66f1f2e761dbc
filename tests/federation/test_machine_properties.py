"""Random orders of joins, leaves, answers, duplicates, ticks and restarts: what must hold in all of them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engram.federation import actions as act
from engram.federation.events import ConsolidatedIn, EvaluationIn, Joined, Left, Tick, UpdateIn
from engram.federation.machine import Machine
from engram.federation.pace import LEAST_SECONDS
from engram.federation.plan import Plan
from engram.federation.sampling import Quorum, sample

WORKERS = ("a", "b", "c", "d")
NEWCOMERS = ("y", "z")
Answer = UpdateIn | ConsolidatedIn | EvaluationIn
every_worker = st.sampled_from(WORKERS + NEWCOMERS)


def expected_order(rounds: tuple[int, ...]) -> list[tuple[int, int]]:
    return [
        position
        for task, count in enumerate(rounds, 1)
        for position in [*((task, round) for round in range(1, count + 1)), (task, 0)]
    ]


class Federation(RuleBasedStateMachine):
    """A world around the machine: workers that may be anywhere, and what a checkpoint keeps."""

    machine: Machine
    plan: Plan

    @initialize(
        rounds=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
        quorum=st.sampled_from(["100%", "75%", "50%", "1", "2"]),
        fraction=st.sampled_from([1.0, 0.5, 0.3]),
        on_workers=st.booleans(),
        every_round=st.booleans(),
        elastic=st.booleans(),
        factor=st.sampled_from([None, 1.5, 3.0]),
        slow=st.sampled_from([0.0, 1.0, 25.0]),
        together=st.booleans(),
    )
    def start(
        self,
        rounds: tuple[int, ...],
        quorum: str,
        fraction: float,
        on_workers: bool,
        every_round: bool,
        elastic: bool,
        factor: float | None,
        slow: float,
        together: bool,
    ) -> None:
        self.plan = Plan(
            workers=WORKERS,
            rounds=rounds,
            seed=3,
            client_fraction=fraction,
            quorum=Quorum.parse(quorum),
            deadline_seconds=10.0,
            straggler_factor=factor,
            evaluate_on_workers=on_workers,
            evaluate_every_round=every_round,
            elastic=elastic,
        )
        self.now, self.slow = 0.0, slow
        self.cursor: act.Cursor | None = None
        self.committed: list[tuple[int, int]] = []
        self.ended = 0
        self.orders: dict[str, list[Answer]] = {}
        self.holds: dict[str, Answer] = {}
        self.answered: list[Answer] = []
        self.boot()
        for worker in WORKERS if together else ():
            self.join(worker, holds=False)

    def boot(self) -> None:
        self.machine = Machine(self.plan, self.cursor)
        self.connected: set[str] = set()
        self.stage: act.OpenStage | None = None
        self.accepted: set[str] = set()
        self.aggregated: tuple[int, int] | None = None
        self.evaluated = False
        self.degraded = 0
        self.opened, self.measured = self.now, False

    # What the machine does to the world.

    def feed(self, event: object) -> None:
        before = len(self.committed)
        for action in self.machine.handle(event, self.now):  # type: ignore[arg-type]
            assert not self.ended
            self.perform(action)
        if len(self.committed) > before:
            self.now += self.slow  # what closes a stage takes its time
            if self.ended:
                assert self.committed == expected_order(self.plan.rounds)
        if self.machine.begin(self.now):
            self.opened = self.now

    def perform(self, action: act.Action) -> None:
        match action:
            case act.OpenStage(kind, task, round, workers):
                self.stage, self.accepted, self.degraded = action, set(), 0
                self.opened, self.measured = self.now, bool(self.cursor and self.cursor.pace)
                assert workers
                assert list(workers) == sorted(set(workers))
                if kind == "round":
                    members = self.machine.cursor.members
                    assert workers == sample(3, task, round, members, self.plan.client_fraction)
            case act.Greet(worker, resend):
                assert worker in self.connected
                if resend:
                    self.order(worker, self.holds[worker])
            case act.SendTrain(worker, task, round):
                self.order(worker, UpdateIn(worker, task, round))
            case act.SendConsolidate(worker, task):
                self.order(worker, ConsolidatedIn(worker, task))
            case act.SendEvaluate(worker, task, round):
                self.order(worker, EvaluationIn(worker, task, round))
            case act.Acknowledge(worker, task, round):
                assert self.stage is not None
                assert (task, round) == (self.stage.task, self.stage.round)
                assert worker in self.stage.workers
                assert worker not in self.accepted
                self.accepted.add(worker)
            case act.Aggregate(task, round, workers, absent):
                self.close("round", task, round, workers, absent)
            case act.CloseTask(task, workers, absent):
                self.close("consolidate", task, 0, workers, absent)
            case act.SumEvaluations(task, round, workers):
                assert set(workers) == self.accepted
                self.evaluated = True
            case act.EvaluateHere():
                self.evaluated = True
            case act.Checkpoint(task, round, cursor):
                assert self.aggregated == (task, round)
                assert self.evaluated == (round == 0 or self.plan.evaluate_every_round)
                self.committed.append((task, round))
                self.cursor, self.aggregated, self.evaluated = cursor, None, False
            case act.Degraded(have=have, needed=needed):
                self.degraded += 1
                assert self.degraded == 1 or self.stage is None
                assert have < needed
            case act.End(reason):
                assert reason == "complete"
                self.ended += 1

    def order(self, worker: str, answer: Answer) -> None:
        assert worker in self.connected
        self.orders.setdefault(worker, []).append(answer)

    def close(
        self, kind: str, task: int, round: int, workers: tuple[str, ...], absent: tuple[str, ...]
    ) -> None:
        assert self.stage is not None
        assert (self.stage.kind, self.stage.task, self.stage.round) == (kind, task, round)
        assert self.aggregated is None
        assert set(workers) == self.accepted
        assert not set(workers) & set(absent)
        asked = len(workers) + len(absent)
        assert len(workers) >= self.plan.quorum.of(asked)
        if not self.plan.elastic:
            assert set(workers) | set(absent) == set(self.stage.workers)
        if absent and not self.plan.elastic:
            hurries = kind == "round" and self.plan.straggler_factor is not None and self.measured
            assert self.now - self.opened >= (LEAST_SECONDS if hurries else self.plan.deadline_seconds)
        self.aggregated = (task, round)

    # What happens to the machine.

    @rule(worker=every_worker, holds=st.booleans())
    def join(self, worker: str, holds: bool) -> None:
        if worker in NEWCOMERS and not self.plan.elastic:
            return
        self.connected.add(worker)
        self.orders.pop(worker, None)
        held = self.holds.get(worker) if holds else None
        if held is None:
            self.feed(Joined(worker))
        else:
            self.feed(Joined(worker, (held.task, 0 if isinstance(held, ConsolidatedIn) else held.round)))

    @rule(worker=every_worker, leaving=st.booleans())
    def leave(self, worker: str, leaving: bool) -> None:
        self.connected.discard(worker)
        self.feed(Left(worker, leaving))

    @rule(worker=every_worker)
    def answer(self, worker: str) -> None:
        if worker in self.connected and self.orders.get(worker):
            answer = self.orders[worker].pop(0)
            if not isinstance(answer, EvaluationIn):
                self.holds[worker] = answer
            self.answered.append(answer)
            self.feed(answer)

    @rule(back=st.integers(1, 6))
    def repeat(self, back: int) -> None:
        if len(self.answered) >= back:
            self.feed(self.answered[-back])

    @rule(worker=every_worker, task=st.integers(0, 4), round=st.integers(0, 4), kind=st.integers(0, 2))
    def nonsense(self, worker: str, task: int, round: int, kind: int) -> None:
        answers: list[Answer] = [
            UpdateIn(worker, task, round),
            ConsolidatedIn(worker, task),
            EvaluationIn(worker, task, round),
        ]
        answer = answers[kind]
        if self.machine.refusal(answer) is not None:
            self.feed(answer)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: not self.ended)
    @rule()
    def restart(self) -> None:
        self.boot()

    @invariant()
    def every_position_was_committed_once_and_in_order(self) -> None:
        assert self.committed == expected_order(self.plan.rounds)[: len(self.committed)]

    @invariant()
    def only_known_workers_count(self) -> None:
        if not self.plan.elastic:
            assert self.machine.cursor.members == WORKERS

    def teardown(self) -> None:
        """When every worker is there and answers, the run ends, whatever came before."""
        if not hasattr(self, "machine"):
            return
        for worker in sorted({*WORKERS, *self.machine.cursor.members}):
            if not self.ended:
                self.join(worker, holds=False)
        for _ in range(200):
            if self.ended:
                break
            for worker in sorted(self.connected):
                self.answer(worker)
            if not any(self.orders.get(worker) for worker in self.connected):
                self.wait(10.0)
        assert self.ended == 1
        assert self.committed == expected_order(self.plan.rounds)


TestFederation = Federation.TestCase
TestFederation.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
