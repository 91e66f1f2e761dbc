from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.spec.names import Condition, Reason
from engram_operator.status import Content, Statement, build_status
from engram_operator.status.build import MOST_BYTES, MOST_CONDITION, MOST_MESSAGE, size_of
from engram_operator.status.conditions import shorten, squeeze
from engram_operator.status.lengths import in_bytes
from engram_operator.status.workers import MOST_MESSAGE as MOST_OF_WORKER
from tests.control.builders import DURABLE, NOW, ended, job_object, live, pod
from tests.control.crd_schema import status_problems
from tests.control.simulation import World

CUTS = [shorten, squeeze]


@pytest.mark.parametrize("cut", CUTS)
@given(text=st.text(st.sampled_from("a é数😀"), max_size=400), most=st.integers(min_value=24, max_value=300))
def test_no_text_is_longer_than_its_limit_and_short_ones_are_whole(
    cut: Callable[[str, int], str], text: str, most: int
) -> None:
    line = " ".join(text.split())
    found = in_bytes(cut, text, most)
    assert len(found.encode()) <= most
    if len(line.encode()) <= most:
        assert found == line
    else:
        assert len(found.encode()) > most / 3, "no more is cut than has to be"


@pytest.mark.parametrize("letter", ["a", "é", "数", "😀"])
def test_a_status_is_small_in_any_language(letter: str) -> None:
    words = f"{letter * 9} " * 400
    statements = {kind: Statement(kind is Condition.DEGRADED, Reason.FINISHED, words) for kind in Condition}
    status = build_status({}, statements, Content(started=NOW, aggregator={"message": words}), NOW, 1)
    sizes = [len(item["message"].encode()) for item in status["conditions"]]
    assert max(sizes) <= MOST_CONDITION
    assert len(status["message"].encode()) <= MOST_MESSAGE
    assert len(status["aggregator"]["message"].encode()) <= MOST_CONDITION


@pytest.mark.parametrize("letter", ["a", "数"])
def test_what_many_workers_say_fits(letter: str) -> None:
    number = 200
    world = World(job_object(aggregator=DURABLE, workers=[{"name": "edge", "replicas": number}]))
    world.settle()
    words = f"{letter * 9} " * 300
    world.pods = (pod(), *(ended(index, 43, words) for index in range(number)))
    world.changes["live"] = live(connected=0, desired=20)
    world.views["digits-edge"] = {"failed_indexes": f"0-{number - 1}"}
    status = world.step().status
    assert status is not None
    assert size_of(status) <= MOST_BYTES
    assert status_problems(status) == []
    told = [len(item["message"].encode()) for item in status["workerStatuses"]]
    assert len(told) >= 12
    assert max(told) <= MOST_OF_WORKER
