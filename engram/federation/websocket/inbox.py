"""What has come in for a worker and nobody has started on: filled by the network thread, emptied by training.

It holds at most the orders that still matter, so a worker that is ten times slower than the others keeps one
model waiting, not one a round.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from engram.federation.messages import Consolidate, Down, Evaluate, Finish, Train


class Arrived(NamedTuple):
    """A message of the aggregator and the number of the connection it came on."""

    connection: int
    message: Down


class Inbox:
    """The messages that wait, and what ended the network thread if anything did."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        """What ended the network thread; nothing more will come."""
        self.over = False
        """The aggregator has ended the run: what is being trained is for nobody."""
        self._newest: tuple[int, float] = (0, 0)
        """Position of the newest order of this connection."""
        self._waiting: list[Arrived] = []
        self._connection = 0
        self._changed = threading.Condition()

    def open(self) -> int:
        """Start the next connection and return its number.

        What an earlier one brought is void but for the run's end: the aggregator says again what it wants.
        """
        with self._changed:
            self._connection += 1
            self._newest = (0, 0)
            self._waiting = [item for item in self._waiting if isinstance(item.message, Finish)]
            return self._connection

    def put(self, message: Down) -> None:
        """Add a message; it takes the place of orders that it has overtaken, never of a task's end."""
        with self._changed:
            if isinstance(message, Finish):
                self.over, self._waiting = True, []
            elif isinstance(message, Train | Evaluate | Consolidate):
                self._newest = _position(message)
                self._waiting = [
                    item for item in self._waiting if not isinstance(item.message, Train | Evaluate)
                ]
            self._waiting.append(Arrived(self._connection, message))
            self._changed.notify()

    def overtaken(self, task: int, round: int) -> bool:
        """Return whether an order has come that is only given once the round is closed: without its update,
        if that is still being made.
        """
        return self._newest > (task, round)

    def fail(self, error: Exception) -> None:
        """Let `take` raise `error`, unless the run's end has come in before."""
        with self._changed:
            self.error = error
            self._changed.notify()

    def take(self, seconds: float) -> Arrived | None:
        """Return the next message, or None when none comes within `seconds`. Raises what `fail` was given."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.error is not None, seconds)
            if self.error is not None and not self.over:
                raise self.error
            return self._waiting.pop(0) if self._waiting else None


def _position(order: Train | Evaluate | Consolidate) -> tuple[int, float]:
    """Return a key that sorts orders in time: an evaluation follows its round, round 0 is a task's end."""
    if isinstance(order, Train):
        return order.task, order.round
    if isinstance(order, Consolidate) or order.round == 0:
        return order.task, float("inf")
    return order.task, order.round + 0.5
