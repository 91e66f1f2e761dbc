"""Slots for large answers: bounded memory, first come, first served, nobody holds one for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engram.federation.messages import Offer
from engram.federation.staging import Staging

SLOTS, ROOM, PATIENCE = 2, 100, 30.0


def offer(size: int = 80, number: int = 1) -> Offer:
    return Offer(number, "Update", 1, 1, size)


def served(staging: Staging, now: float = 0.0) -> list[str]:
    found = []
    while (item := staging.next(now)) is not None:
        found.append(item[0])
    return found


def test_large_answers_take_turns_in_the_order_of_their_offers() -> None:
    staging = Staging(SLOTS, ROOM, PATIENCE)
    for worker in "cab":
        staging.offer(worker, offer())
    assert served(staging) == ["c", "a"]
    staging.leave("a")
    assert served(staging) == ["b"]
    assert served(staging) == []


def test_small_answers_share_the_room_beyond_the_slots() -> None:
    staging = Staging(SLOTS, ROOM, PATIENCE)
    for worker in "abcde":
        staging.offer(worker, offer(30))
    assert served(staging) == ["a", "b", "c"]


def test_a_new_offer_stands_for_the_one_before_and_gives_its_slot_up() -> None:
    staging = Staging(1, 0, PATIENCE)
    staging.offer("a", offer())
    staging.offer("b", offer())
    assert served(staging) == ["a"]
    staging.offer("a", offer(number=2))
    assert served(staging) == ["b"]
    staging.leave("b")
    assert staging.next(0.0) == ("a", offer(number=2))


def test_who_sends_nothing_while_others_wait_loses_the_slot() -> None:
    staging = Staging(SLOTS, 0, PATIENCE)
    for worker in "abc":
        staging.offer(worker, offer())
    assert served(staging, now=0.0) == ["a", "b"]
    staging.heard("a", 5.0)
    assert staging.stalled(PATIENCE) == []
    # Both are late; one slot is enough for the one that waits, and b was heard last.
    assert staging.stalled(PATIENCE + 6) == [("b", offer())]
    assert served(staging, PATIENCE + 6) == ["c"]
    assert staging.stalled(1000.0) == []


def test_a_slow_one_keeps_its_slot_while_nobody_waits_or_while_pieces_come() -> None:
    staging = Staging(1, 0, PATIENCE)
    staging.offer("a", offer())
    assert served(staging) == ["a"]
    assert staging.stalled(1e6) == []
    staging.offer("b", offer())
    staging.heard("a", 1e6)
    staging.heard("a", 5.0)  # news that is old
    assert staging.stalled(1e6 + PATIENCE) == []


@given(
    st.lists(st.integers(1, 200), max_size=20),
    st.integers(1, 4),
    st.integers(0, 300),
)
def test_everybody_is_served_once(sizes: list[int], slots: int, room: int) -> None:
    staging = Staging(slots, room, PATIENCE)
    for index, size in enumerate(sizes):
        staging.offer(str(index), offer(size))
    done: list[str] = []
    while sending := served(staging):
        done += sending
        for worker in sending:
            staging.leave(worker)
    assert done == [str(index) for index in range(len(sizes))]


class Slots(RuleBasedStateMachine):
    """Workers offer, send, stall and vanish in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.staging = Staging(SLOTS, ROOM, PATIENCE)
        self.now = 0.0
        self.sending: dict[str, int] = {}
        self.waiting: dict[str, int] = {}

    @rule(worker=st.sampled_from("abcdef"), size=st.integers(1, 150))
    def offers(self, worker: str, size: int) -> None:
        self.staging.offer(worker, offer(size))
        self.sending.pop(worker, None)
        self.waiting.pop(worker, None)
        self.waiting[worker] = size

    @rule()
    def serve(self) -> None:
        while (found := self.staging.next(self.now)) is not None:
            worker, given_to = found
            assert worker == next(iter(self.waiting))
            assert self.waiting.pop(worker) == given_to.size
            self.sending[worker] = given_to.size

    @rule(worker=st.sampled_from("abcdef"))
    def leaves(self, worker: str) -> None:
        self.staging.leave(worker)
        self.sending.pop(worker, None)
        self.waiting.pop(worker, None)

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def hears(self, data: st.DataObject) -> None:
        self.staging.heard(data.draw(st.sampled_from(sorted(self.sending))), self.now)

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        taken = self.staging.stalled(self.now)
        assert len(taken) <= len(self.waiting)
        for worker, _ in taken:
            del self.sending[worker]

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.sending) <= SLOTS or sum(self.sending.values()) <= ROOM


TestSlots = Slots.TestCase
