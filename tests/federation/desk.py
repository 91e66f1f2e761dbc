"""An aggregator by hand: one message at a time, with a clock set by the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from engram.federation.messages import Hello, Outgoing
from engram.federation.outcome import Outcome
from engram.federation.worker import WorkerSession

Kind = TypeVar("Kind")


class Desk:
    """An aggregator, the workers' sessions, and the letters between them, delivered when the test says so."""

    def __init__(self, federation: Any) -> None:
        self.federation = federation
        self.aggregator = federation.aggregator()
        self.learners = federation.workers()
        self.sessions: dict[str, WorkerSession] = {}
        self.now = 1000.0
        self.mail: list[Outgoing] = []
        self.settles = True
        """Whether what a step closed is made durable when its messages are on their way."""

    def hello(self, name: str, **changes: Any) -> Hello:
        session = self.sessions.get(name)
        if session is None:
            packer = self.federation.packer_of(name)
            session = self.sessions[name] = WorkerSession(self.learners[name], name, "job", packer=packer)
        return replace(session.hello(), **changes)

    @property
    def outcome(self) -> Outcome:
        """How the run ended."""
        found = self.aggregator.outcome
        assert isinstance(found, Outcome)
        return found

    def join(self, *workers: str) -> list[Outgoing]:
        return self.post([out for w in workers for out in self.connect(w)])

    def connect(self, name: str, **changes: Any) -> list[Outgoing]:
        sent: list[Outgoing] = self.aggregator.connect(name, self.hello(name, **changes), self.now)
        return sent

    def post(self, outgoing: list[Outgoing]) -> list[Outgoing]:
        self.mail += outgoing
        self.aggregator.begin(self.now)
        if self.settles:
            self.aggregator.settle()
        return outgoing

    def say(self, worker: str, message: Any) -> list[Outgoing]:
        return self.post(self.aggregator.receive(worker, message, self.now))

    def answer(self, worker: str) -> list[Any]:
        """Let a worker take its mail in; return what it would send."""
        mine = [letter for letter in self.mail if letter.worker == worker]
        self.mail = [letter for letter in self.mail if letter.worker != worker]
        session = self.sessions[worker]
        return [
            answer for letter in mine for answer in session.receive(letter.message, lambda share, loss: None)
        ]

    def turn(self, *workers: str) -> list[Outgoing]:
        """Let workers answer their mail, one after the other."""
        sent = []
        for worker in workers or tuple(self.sessions):
            for answer in self.answer(worker):
                sent += self.say(worker, answer)
        return sent

    def run(self) -> None:
        """Go on to the end."""
        for _ in range(200):
            if self.aggregator.outcome is not None:
                return
            self.turn()
        raise AssertionError("the run does not end")

    def pass_deadline(self) -> list[Outgoing]:
        self.now += 600.0
        return self.post(self.aggregator.tick(self.now))


def of(kind: type[Kind], letters: list[Outgoing]) -> list[Kind]:
    return [letter.message for letter in letters if isinstance(letter.message, kind)]
