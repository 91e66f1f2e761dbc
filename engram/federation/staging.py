"""Who may send a large answer now, so that the aggregator's memory does not grow with the workers.

An answer waits at its worker until there is a slot for it, first come, first served. There are few slots, or
as many as fit into a fixed amount of memory where the model is small. Whoever has a slot and sends nothing
while others wait loses it, and its answer goes to the end of the queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from engram.federation.messages import Offer


@dataclass
class _Slot:
    """An answer that is on its way."""

    offer: Offer
    heard: float
    """When the slot was given, or when the last piece came."""


class Staging:
    """The slots and the queue; it knows no socket and no clock."""

    def __init__(self, slots: int, room_bytes: int, patience_seconds: float) -> None:
        """Have `slots` for answers of any size, and more while all together take at most `room_bytes`."""
        self._least, self._room, self._patience = slots, room_bytes, patience_seconds
        self._slots: dict[str, _Slot] = {}
        self._waiting: dict[str, Offer] = {}

    def offer(self, worker: str, offer: Offer) -> None:
        """Take an offer in; it stands for whatever the worker offered before."""
        self.leave(worker)
        self._waiting[worker] = offer

    def leave(self, worker: str) -> Offer | None:
        """Forget a worker, whose answer is in, or who is gone; return what it was sending."""
        self._waiting.pop(worker, None)
        slot = self._slots.pop(worker, None)
        return None if slot is None else slot.offer

    def next(self, now: float) -> tuple[str, Offer] | None:
        """Give the next free slot to whoever waits longest; None: there is no slot, or nobody waits."""
        for worker, offer in self._waiting.items():
            taken = sum(slot.offer.size for slot in self._slots.values())
            if len(self._slots) >= self._least and taken + offer.size > self._room:
                return None
            del self._waiting[worker]
            self._slots[worker] = _Slot(offer, now)
            return worker, offer
        return None

    def heard(self, worker: str, now: float) -> None:
        """Note that the last piece of a worker's answer came at `now`."""
        slot = self._slots.get(worker)
        if slot is not None:
            slot.heard = max(slot.heard, now)

    def stalled(self, now: float) -> list[tuple[str, Offer]]:
        """Take slots from those who have sent nothing for too long: the slowest first, one for each that
        waits.
        """
        late = [
            (slot.heard, worker) for worker, slot in self._slots.items() if now - slot.heard > self._patience
        ]
        return [(worker, self._slots.pop(worker).offer) for _, worker in sorted(late)[: len(self._waiting)]]
