"""Random orders of everything that can happen to asynchronous rounds: what must hold in all of them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engram.federation import actions as act
from engram.federation.buffered import machine_of
from engram.federation.events import ConsolidatedIn, Joined, Left, Spoilt, Tick, UpdateIn
from engram.federation.machine import Machine
from engram.federation.plan import Plan

WORKERS = ("a", "b", "c", "d")
Answer = UpdateIn | ConsolidatedIn
every_worker = st.sampled_from(WORKERS)


class Federation(RuleBasedStateMachine):
    """Workers that do one thing at a time, and keep the answer to their last order until the next one."""

    machine: Machine
    plan: Plan

    @initialize(
        rounds=st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
        buffer=st.integers(1, 4),
        most=st.integers(0, 3),
        elastic=st.booleans(),
    )
    def start(self, rounds: tuple[int, ...], buffer: int, most: int, elastic: bool) -> None:
        self.plan = Plan(
            WORKERS, rounds, deadline_seconds=10.0, buffer=buffer, max_staleness=most, elastic=elastic
        )
        self.now = 0.0
        self.cursor: act.Cursor | None = None
        self.committed: list[tuple[int, int]] = []
        self.counted: list[UpdateIn] = []
        """Updates that are in committed rounds."""
        self.ended = False
        self.work: dict[str, Answer] = {}
        self.holds: dict[str, Answer] = {}
        self.boot()
        for worker in WORKERS:
            self.join(worker, holds=False)

    def boot(self) -> None:
        self.machine = machine_of(self.plan, self.cursor)
        self.connected: set[str] = set()
        self.open: list[UpdateIn] = []
        self.accepted: set[str] = set()

    def feed(self, event: object) -> list[act.Action]:
        actions = self.machine.handle(event, self.now)  # type: ignore[arg-type]
        for action in actions:
            assert not self.ended
            self.perform(action, event)
        return actions

    def perform(self, action: act.Action, event: object) -> None:
        match action:
            case act.OpenStage():
                self.accepted = set()
            case act.SendTrain(worker, task, round):
                assert worker in self.connected
                assert (task, round) == self.machine.position
                self.work[worker] = UpdateIn(worker, task, round)
            case act.SendConsolidate(worker, task):
                self.work[worker] = ConsolidatedIn(worker, task)
            case act.Greet(worker, resend, holds):
                if resend:
                    held = self.holds[worker]
                    assert holds in (None, place(held))
                    assert self.work.get(worker, held) == held or isinstance(held, UpdateIn)
                    self.work[worker] = held
            case act.Acknowledge(worker):
                assert worker not in self.accepted, "one update a worker and round"
                self.accepted.add(worker)
                if isinstance(event, UpdateIn):
                    self.open.append(event)
            case act.Aggregate(task, round, workers, absent):
                assert absent == ()
                assert len(workers) == self.plan.buffer or (self.plan.elastic and workers)
                assert {update.worker for update in self.open} == set(workers)
                assert all(update.task == task for update in self.open)
                assert all(0 <= round - update.round <= self.plan.max_staleness for update in self.open)
            case act.CloseTask(_, workers, absent):
                assert workers == WORKERS or (self.plan.elastic and workers)
                assert absent == ()
            case act.Checkpoint(task, round, cursor):
                self.committed.append((task, round))
                self.counted += self.open
                self.open, self.cursor = [], cursor
            case act.End(reason):
                assert reason == "complete"
                self.ended = True

    @rule(worker=every_worker, holds=st.booleans())
    def join(self, worker: str, holds: bool) -> None:
        self.connected.add(worker)
        self.work.pop(worker, None)
        held = self.holds.get(worker) if holds else None
        if held is None:
            self.holds.pop(worker, None)
        self.feed(Joined(worker, None if held is None else place(held)))

    @rule(worker=every_worker, leaving=st.booleans())
    def leave(self, worker: str, leaving: bool) -> None:
        self.connected.discard(worker)
        self.feed(Left(worker, leaving))

    @rule(worker=every_worker)
    def answer(self, worker: str) -> None:
        if worker in self.connected and worker in self.work:
            answer = self.holds[worker] = self.work.pop(worker)
            self.feed(answer)

    @rule(worker=every_worker)
    def miss_what_the_others_do(self, worker: str) -> None:
        self.leave(worker, leaving=False)
        for other in WORKERS:
            self.answer(other)
        self.join(worker, holds=True)

    @rule(worker=every_worker)
    def answer_twice(self, worker: str) -> None:
        held = self.holds.get(worker)
        if worker in self.connected and held is not None and worker not in self.work:
            assert not any(isinstance(action, act.Acknowledge) for action in self.feed(held))

    @rule(worker=every_worker)
    def spoil(self, worker: str) -> None:
        if worker in self.connected and isinstance(self.work.get(worker), UpdateIn):
            self.holds.pop(worker, None)
            del self.work[worker]
            self.feed(Spoilt(worker))

    @rule(worker=every_worker, task=st.integers(0, 3), round=st.integers(0, 5))
    def nonsense(self, worker: str, task: int, round: int) -> None:
        update = UpdateIn(worker, task, round)
        if self.work.get(worker) != update and self.machine.refusal(update) is not None:
            self.feed(update)

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: not self.ended)
    @rule()
    def restart(self) -> None:
        self.boot()

    @invariant()
    def no_update_counts_twice(self) -> None:
        assert len(set(self.counted)) == len(self.counted)

    @invariant()
    def rounds_come_in_order(self) -> None:
        expected = [
            position
            for task, count in enumerate(self.plan.rounds, 1)
            for position in [*((task, round) for round in range(1, count + 1)), (task, 0)]
        ]
        assert self.committed == expected[: len(self.committed)]

    def teardown(self) -> None:
        """When every worker is there and answers, the run ends, whatever came before."""
        if not hasattr(self, "machine"):
            return
        for worker in WORKERS:
            if not self.ended:
                self.join(worker, holds=False)
        for _ in range(100):
            for worker in WORKERS:
                if not self.ended:
                    self.answer(worker)
        assert self.ended


def place(answer: Answer) -> tuple[int, int]:
    """Return (task, round) as a hello says it."""
    return answer.task, 0 if isinstance(answer, ConsolidatedIn) else answer.round


TestFederation = Federation.TestCase
TestFederation.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
