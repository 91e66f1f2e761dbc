"""The round machine alone with very many workers: what deciding costs, without a byte sent.

    python -m benchmarks.federation_load.core WORKERS ROUNDS

Prints as JSON what every scene takes, joining and each round: all workers asked in a round or one in a
hundred, workers that leave and come back meanwhile, late ones, and groups that grow and shrink.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

from engram.federation.actions import Action, End, SendConsolidate, SendTrain
from engram.federation.buffered import machine_of
from engram.federation.events import ConsolidatedIn, Event, Joined, Left, Tick, UpdateIn
from engram.federation.plan import Plan
from engram.federation.sampling import Quorum

DEADLINE = 600.0
USUAL = 10.0
"""Simulated seconds that a worker takes which is not late."""


@dataclass(frozen=True)
class Scene:
    """What happens in every round."""

    fraction: float = 1.0
    """Share of the workers that a round asks."""
    leaving: float = 0.0
    """Share of all workers that go and come back before the first update is in."""
    late: float = 0.0
    """Share of those asked whose update comes after the deadline; the quorum allows for it."""
    straggler_factor: float | None = None
    buffer: float = 0.0
    """Share of the workers whose updates make an asynchronous round."""
    elastic: bool = False
    """The run starts with one worker, the others are newcomers, and those who go have left their group."""


SCENES = {
    "every worker in every round": Scene(),
    "one worker in a hundred": Scene(fraction=0.01),
    "a tenth leaves and comes back": Scene(leaving=0.1),
    "all join one by one, a tenth leaves and joins anew": Scene(leaving=0.1, elastic=True),
    "a hundredth misses the deadline": Scene(late=0.01),
    "a hundredth misses an adaptive deadline": Scene(late=0.01, straggler_factor=2.0),
    "half of the workers make an asynchronous round": Scene(buffer=0.5),
}


class _Crowd:
    """Workers that do what a scene says, and the clock that they share."""

    def __init__(self, scene: Scene, workers: int, rounds: int) -> None:
        self.scene = scene
        self.names = tuple(f"trainworker-load-{index}" for index in range(workers))
        self.machine = machine_of(
            Plan(
                self.names[:1] if scene.elastic else self.names,
                (rounds,),
                client_fraction=scene.fraction,
                quorum=Quorum(share=1.0 - scene.late),
                deadline_seconds=DEADLINE,
                straggler_factor=scene.straggler_factor,
                buffer=int(scene.buffer * workers),
                max_staleness=5,
                elastic=scene.elastic,
            )
        )
        self.now = 0.0
        self.ended = False
        self._orders: dict[str, Event] = {}

    def tell(self, event: Event) -> None:
        """Feed an event and keep the orders that come of it."""
        for action in self.machine.handle(event, self.now):
            self._keep(action)

    def _keep(self, action: Action) -> None:
        match action:
            case SendTrain(worker, task, round):
                self._orders[worker] = UpdateIn(worker, task, round)
            case SendConsolidate(worker, task):
                self._orders[worker] = ConsolidatedIn(worker, task)
            case End(reason):
                assert reason == "complete", action
                self.ended = True

    def play(self) -> None:
        """Let one stage happen, from the orders to its end."""
        before = self.machine.position
        for name in self.names[: int(self.scene.leaving * len(self.names))]:
            self.tell(Left(name, leaving=self.scene.elastic))
            self._orders.pop(name, None)
            self.tell(Joined(name))
        orders, self._orders = self._orders, {}
        rounds = before[1] > 0
        late = dict(list(orders.items())[: int(self.scene.late * len(orders))]) if rounds else {}
        working = {worker: order for worker, order in orders.items() if worker not in late}
        self.now += USUAL
        for worker, answer in orders.items():
            if worker not in late and self.machine.position == before:
                self.tell(answer)
                working.pop(worker)
        self._orders = {**{w: o for w, o in working.items() if w not in self._orders}, **self._orders}
        if self.machine.position == before and not self.ended:
            self.now = self.machine.deadline or self.now
            self.tell(Tick())
        assert self.machine.position != before or self.ended, f"{before} goes on"
        for answer in late.values():
            self.tell(answer)


class Seconds(NamedTuple):
    """What a scene took."""

    joining: float
    rounds: list[float]
    """Each round of the task, and the task's end last."""


def simulated(workers: int, rounds: int, scene: Scene | None = None) -> Seconds:
    """Play a task of so many rounds."""
    crowd = _Crowd(scene or Scene(), workers, rounds)
    start = time.perf_counter()
    for name in crowd.names:
        crowd.tell(Joined(name))
    joining, seconds = time.perf_counter() - start, list[float]()
    while not crowd.ended:
        start = time.perf_counter()
        crowd.play()
        seconds.append(time.perf_counter() - start)
    return Seconds(joining, seconds)


if __name__ == "__main__":
    count, rounds = int(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({name: simulated(count, rounds, scene)._asdict() for name, scene in SCENES.items()}))
