from __future__ import annotations

from typing import Any

from engram.federation.presence import Presence


class States:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def worker_changed(self, worker: str, state: str) -> None:
        self.seen.append((worker, state))


def presence() -> tuple[Presence, list[tuple[str, str]]]:
    states: Any = States()
    return Presence(states, 10.0), states.seen


def test_changes_are_told_once() -> None:
    made, seen = presence()
    assert not made.joined("a", 0.0)
    made.set("a", "training")
    made.set("a", "training")
    made.left("a")
    assert made.joined("a", 1.0)
    assert [state for _, state in seen] == ["connected", "training", "disconnected", "connected"]


def test_three_missed_heartbeats_show_and_a_byte_brings_the_state_back() -> None:
    made, seen = presence()
    made.joined("a", 0.0)
    made.set("a", "training")
    made.tick(30.0)
    assert seen[-1] == ("a", "training")
    made.tick(30.1)
    made.tick(99.0)
    assert seen[-1] == ("a", "disconnected")
    made.heard("a", 100.0)
    assert seen[-1] == ("a", "training")
    made.tick(129.0)
    assert len(seen) == 4


def test_a_silent_worker_stays_disconnected_whatever_it_is_told_to_do() -> None:
    made, seen = presence()
    made.joined("a", 0.0)
    made.heard("a", 5.0)
    for now in (36.0, 36.5, 37.0):
        # The transport says at every tick when it heard of the worker last.
        made.heard("a", 5.0)
        made.tick(now)
    made.set("a", "training")
    made.tick(38.0)
    assert seen == [("a", "connected"), ("a", "disconnected")]
    made.heard("a", 39.0)
    assert seen[-1] == ("a", "training")


def test_a_failed_worker_stays_failed_when_its_connection_goes() -> None:
    made, seen = presence()
    made.joined("a", 0.0)
    made.set("a", "failed")
    made.left("a")
    made.tick(1000.0)
    made.heard("a", 1001.0)
    assert made.states() == {"a": "failed"}
    assert len(seen) == 2
