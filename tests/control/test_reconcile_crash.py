"""Killed between any two writes: the next look leads to the same end, nothing twice, and then to rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.spec.tokens import worker_token
from engram_operator.model import Object
from engram_operator.reconcile.after import ENDS_WITHIN
from tests.control.builders import DURABLE, UID, job_object, node, true
from tests.control.simulation import (
    FLEET,
    LOCAL,
    REPORT,
    Crash,
    World,
    done,
    edit,
    printed,
    serving,
    up,
    workers_end,
)

Change = Callable[[World], None]


def _nothing(world: World) -> None:
    pass


def _suspend(world: World) -> None:
    edit(world, suspend=True)
    world.pods = ()


def _resume(world: World) -> None:
    edit(world, suspend=False)


def _lose_the_secret(world: World) -> None:
    world.secrets.pop("digits-credentials")


def _lose_everything(world: World) -> None:
    world.secrets.pop("digits-worker-tokens")
    world.objects.clear()
    world.jobs.clear()
    world.pods = ()


def _break_the_report(world: World) -> None:
    world.views[REPORT] = {"conditions": {"Failed": true("PodFailurePolicy", "exit code 43")}, "active": 0}


def _grow(world: World) -> None:
    edit(world, workers=[{"name": "edge", "replicas": 5}])


def _run(world: World) -> None:
    world.pods = FLEET


def _nearly(world: World) -> None:
    world.now += ENDS_WITHIN - timedelta(seconds=10)


def _later(world: World) -> None:
    world.now += ENDS_WITHIN


STORIES: dict[str, tuple[dict[str, Any], tuple[Change, ...]]] = {
    "start": ({}, (_nothing, _run)),
    "start without a durable checkpoint": ({"aggregator": {}}, (_nothing, _run)),
    "start behind a node port": (
        {"aggregator": {**DURABLE, "expose": {"type": "NodePort"}}},
        (_nothing, _run),
    ),
    "start with a claim": ({"aggregator": {"checkpoint": {"size": "1Gi"}}}, (_nothing,)),
    "suspend, resume": ({}, (_run, _suspend, _resume, _run)),
    "created suspended": ({"suspend": True}, (_nothing, _resume)),
    "a secret lost, then suspend, resume": ({}, (_run, _lose_the_secret, _suspend, _resume, _run)),
    "everything deleted by hand": ({}, (_run, _lose_everything)),
    "grow": ({"dataset": LOCAL}, (_run, _grow)),
    "end": ({}, (_run, done, workers_end, printed, _later)),
    "end, a worker that does not end": ({}, (_run, done, printed, _later)),
    "end, a worker that ends in the last moment": ({}, (_run, done, _nearly, workers_end, printed, _later)),
    "end, all cleaned": ({"runPolicy": {"cleanPodPolicy": "All"}}, (_run, done, printed)),
    "end, the record fetched from the aggregator": (
        {"aggregator": {}},
        (_run, serving, done, workers_end, printed),
    ),
    "end, no report": ({}, (_run, done, workers_end, _break_the_report)),
    "invalid": ({"algorithm": {"name": "nope"}}, (_nothing,)),
}


def world_of(spec: dict[str, Any]) -> World:
    world = World(job_object(**{"aggregator": DURABLE, **copy.deepcopy(spec)}))
    world.changes["nodes"] = (node("cloud"),)
    return world


def comparable(world: World) -> Object:
    """The end state; keys are random, so only who fits whom is compared."""
    state = copy.deepcopy(world.state())
    credentials = world.secrets.get("digits-credentials")
    config = state["objects"].get("ConfigMap/digits-spec")
    if config is not None:
        assert credentials is None or config["data"]["ca.crt"] == credentials["ca.crt"], "CA of another key"
        config["data"].pop("ca.crt")
    return state


def tokens_fit(world: World) -> bool:
    """Whether every token is derived from the key that the aggregator has."""
    if not {"digits-credentials", "digits-worker-tokens"} <= set(world.secrets):
        return True
    key = bytes.fromhex(world.secrets["digits-credentials"]["key"])
    return all(
        token == worker_token(key, UID, name) for name, token in world.secrets["digits-worker-tokens"].items()
    )


def tell(story: str, crashes: list[int]) -> World:
    """Live through a story, killed after so many writes of each plan in turn."""
    spec, changes = STORIES[story]
    world, left = world_of(spec), list(crashes)
    for change in changes:
        change(world)
        for _ in range(40):
            before = len(world.writes)
            try:
                world.step(left.pop(0) if left else None)
            except Crash:
                assert tokens_fit(world), "a worker would be refused"
                continue
            world.now += timedelta(milliseconds=100)
            if len(world.writes) == before:
                break
        else:
            raise AssertionError(f"no rest: {world.writes[-10:]}")
    return world


ENDS = {story: comparable(tell(story, [])) for story in STORIES}


@pytest.mark.parametrize("story", STORIES)
def test_a_crash_after_each_single_write(story: str) -> None:
    for write in range(12):
        world = tell(story, [write])
        assert comparable(world) == ENDS[story], write
        assert tokens_fit(world)


@settings(max_examples=60, deadline=None)
@given(story=st.sampled_from(sorted(STORIES)), crashes=st.lists(st.integers(0, 9), max_size=12))
def test_any_number_of_crashes_leads_to_the_same_end(story: str, crashes: list[int]) -> None:
    world = tell(story, crashes)
    assert comparable(world) == ENDS[story]
    assert tokens_fit(world)


@pytest.mark.parametrize("story", STORIES)
def test_at_the_end_nothing_is_left_to_do(story: str) -> None:
    world = tell(story, [])
    world.writes.clear()
    for _ in range(3):
        world.step()
        world.now += timedelta(seconds=5)
    assert world.writes == []


def test_the_jobs_of_workers_that_ended_are_still_there_at_the_end() -> None:
    assert "digits-edge" in ENDS["end"]["jobs"]
    assert "digits-edge" in ENDS["end, a worker that ends in the last moment"]["jobs"]
    assert "digits-edge" not in ENDS["end, a worker that does not end"]["jobs"]


@pytest.mark.parametrize("crash", range(8))
def test_the_spec_of_the_first_try_does_not_bind_before_a_job_exists(crash: int) -> None:
    """An edit between a crash and the next look takes effect as long as nothing runs with the old spec."""
    world = world_of({})
    with pytest.raises(Crash):
        world.step(crash)
    started = bool(world.jobs)
    edit(world, training={"batchSize": 7})
    world.settle()
    held = '"batchSize": 7' in world.objects["ConfigMap/digits-spec"]["data"]["job.yaml"]
    assert held is not started
    digests = {job["metadata"]["annotations"]["engram.dev/spec-digest"] for job in world.jobs.values()}
    assert len(digests) == 1, "all of one spec"


def test_active_time_survives_a_crash_while_suspending() -> None:
    world = up()
    world.now += timedelta(seconds=100)
    edit(world, suspend=True)
    with pytest.raises(Crash):
        world.step(2)
    world.now += timedelta(seconds=1)
    world.settle()
    assert world.raw is not None
    assert 100 <= world.raw["status"]["activeSeconds"] <= 110
