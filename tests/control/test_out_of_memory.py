"""Killed for memory: the limit is Kubernetes' word, the peak the aggregator's, and both are told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.federation.messages import Heartbeat
from engram.metrics.status import LiveStatus
from engram.spec.names import Reason
from engram_operator.model import Live, PodView
from engram_operator.reconcile import reconcile
from engram_operator.status.build import write_in
from engram_operator.status.finding import AGGREGATOR
from engram_operator.status.memory_use import known_peaks, quantity, use_of_memory, with_peaks
from tests.control.builders import NOW, SETTINGS, ended, live, observed, pod
from tests.control.simulation import FLEET, World, failed, status, up

A, B = "trainworker-edge-0", "trainworker-edge-1"
MIB = 2**20


def said(aggregator: int = 0, **workers: int) -> Live:
    """A live status in which these (w0, w1) have used so much."""
    entries = [
        {"name": name, "group": "edge", "state": "training", "round": 3}
        | ({"memoryBytes": workers[key]} if key in workers else {})
        for key, name in (("w0", A), ("w1", B))
    ]
    return live(workers=entries, aggregator={"memoryBytes": aggregator} if aggregator else {})


def killed(index: int | None = 0, limit: str = "256Mi") -> PodView:
    return ended(index, 137, reason="OOMKilled", memory_limit=limit)


USES = {
    "both": ("256Mi", 241 * MIB, " (limit 256Mi, peak reported 241Mi)"),
    "limit alone": ("256Mi", 0, " (limit 256Mi)"),
    "peak alone": ("", 12 * 2**30 + 2**29, " (peak reported 12.5Gi)"),
    "neither": ("", 0, ""),
}


@pytest.mark.parametrize(("limit", "peak", "words"), USES.values(), ids=USES)
def test_what_is_known_is_told(limit: str, peak: int, words: str) -> None:
    assert use_of_memory(pod(0, memory_limit=limit, memory_peak=peak)) == words


@given(st.integers(1, 2**53))
def test_a_quantity_is_near_its_bytes(size: int) -> None:
    text = quantity(size)
    unit = {"Mi": MIB, "Gi": 2**30}[text[-2:]]
    assert abs(float(text[:-2]) * unit - size) <= max(MIB, 0.051 * unit)


def test_the_aggregators_words_are_the_operators() -> None:
    real = LiveStatus([[0, 1]], [3], [(A, "edge")], memory=lambda: 300 * MIB)
    real.worker_changed(A, "training")
    for size in (200, 241, 100):
        real.heartbeat(A, Heartbeat("training", memory_bytes=size * MIB))
    real.worker_changed(A, "disconnected")
    assert known_peaks({}, Live(real.as_dict(), NOW)) == {A: 241 * MIB, AGGREGATOR: 300 * MIB}


def test_the_higher_of_what_was_written_and_what_is_said_counts() -> None:
    written = {"aggregator": {"memoryBytes": 5}, "workerStatuses": [{"name": A, "memoryBytes": 9}]}
    assert known_peaks(written, said(7, w0=8, w1=3)) == {AGGREGATOR: 7, A: 9, B: 3}


_ODD: list[Any] = [
    {"aggregator": 7, "workerStatuses": 7},
    {"aggregator": {"memoryBytes": "much"}, "workerStatuses": [None, 7, {"memoryBytes": 5}]},
    {"aggregator": {"memoryBytes": -1}, "workerStatuses": [{"name": A, "memoryBytes": 2**60}]},
    {"aggregator": {"memoryBytes": 1.5}, "workerStatuses": [{"name": 7, "memoryBytes": 5}]},
]


@pytest.mark.parametrize("odd", _ODD)
def test_what_is_odd_is_not_known(odd: Mapping[str, Any]) -> None:
    assert known_peaks({}, Live({**live().status, **odd}, NOW)) == {}
    world = up()
    world.changes["live"] = Live({**live().status, **odd}, NOW)
    world.settle()
    assert "memoryBytes" not in status(world)["aggregator"]


def test_pods_get_the_peak_of_their_worker() -> None:
    seen = observed(pods=[pod(), pod(0), pod(1), pod(0, group="other")], live=said(7, w0=8))
    assert [view.memory_peak for view in with_peaks(seen, {}).pods] == [7, 8, 0, 0]


def test_a_worker_killed_for_memory_is_told_with_limit_and_peak() -> None:
    world = up()
    world.changes["live"] = said(w0=241 * MIB)
    world.pods = (pod(), killed(0), pod(1))
    world.settle()
    assert status(world)["reason"] == Reason.OUT_OF_MEMORY
    assert f"{A}: killed for memory (limit 256Mi, peak reported 241Mi); " in status(world)["message"]
    worst = status(world)["workerStatuses"][0]
    assert worst["memoryBytes"] == 241 * MIB
    assert "(limit 256Mi, peak reported 241Mi)" in worst["message"]


def test_the_peak_stays_known_when_the_aggregator_is_not_heard_any_more() -> None:
    """It is killed itself, and takes what it knew with it; also a restarted operator knows nothing else."""
    world = up()
    world.changes["live"] = said(900 * MIB, w0=241 * MIB)
    world.settle()
    world.changes["live"] = None
    world.pods = (killed(None, "1Gi"), pod(0), pod(1))
    world.settle()
    assert "killed for memory (limit 1Gi, peak reported 900Mi)" in status(world)["message"]
    world.pods = (pod(), killed(0), pod(1))
    world.settle()
    assert "killed for memory (limit 256Mi, peak reported 241Mi)" in status(world)["message"]


def test_a_job_that_failed_for_memory_says_both() -> None:
    world = up()
    world.changes["live"] = said(900 * MIB)
    world.settle()
    world.changes["live"] = None
    failed(world, killed(None, "1Gi"))
    world.step()
    assert status(world)["reason"] == Reason.OUT_OF_MEMORY
    assert status(world)["message"].startswith("killed for memory (limit 1Gi, peak reported 900Mi): delete")
    assert status(world)["aggregator"]["memoryBytes"] == 900 * MIB


def test_without_knowledge_the_limit_is_told() -> None:
    world = up()
    world.pods = (pod(), killed(0), pod(1))
    world.settle()
    assert "killed for memory (limit 256Mi); " in status(world)["message"]


def test_memory_goes_with_the_next_write_and_makes_none() -> None:
    world: World = up()
    world.changes["live"] = said(900 * MIB, w0=200 * MIB)
    world.settle()
    old = status(world)
    more = observed(
        world.observe()[0].jobs.values(),
        FLEET,
        world.observe()[0],
        live=said(950 * MIB, w0=210 * MIB, w1=MIB),
    )
    later = NOW + timedelta(hours=1)
    assert world.raw is not None
    assert reconcile(world.raw, world.credentials(), more, SETTINGS, later).status is None
    risen = {**old, "aggregator": {**old["aggregator"], "memoryBytes": 950 * MIB}}
    assert write_in(old, risen, later) is None
    assert write_in(old, {**risen, "display": {"round": "4/25"}}, later) == 0.0
