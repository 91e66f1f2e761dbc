"""The round machine alone with very many workers: what deciding costs, without a byte sent.

    python -m benchmarks.federation_load.core WORKERS ROUNDS

Prints the seconds of each round, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from engram.federation.actions import SendConsolidate, SendTrain
from engram.federation.events import ConsolidatedIn, Event, Joined, UpdateIn
from engram.federation.machine import Machine
from engram.federation.plan import Plan


def simulated(workers: int, rounds: int) -> list[float]:
    """Return the seconds of each round of a task in which every worker answers every order."""
    names = tuple(f"trainworker-load-{index}" for index in range(workers))
    machine = Machine(Plan(names, (rounds,)))
    actions = [action for name in names for action in machine.handle(Joined(name), 0.0)]
    seconds: list[float] = []
    while machine.kind != "finished" and actions:
        start, following = time.perf_counter(), []
        for action in actions:
            event: Event | None = None
            if isinstance(action, SendTrain):
                event = UpdateIn(action.worker, action.task, action.round)
            elif isinstance(action, SendConsolidate):
                event = ConsolidatedIn(action.worker, action.task)
            if event is not None:
                following += machine.handle(event, 0.0)
        actions = following
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    print(json.dumps(simulated(int(sys.argv[1]), int(sys.argv[2]))))
