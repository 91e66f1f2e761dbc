"""`make chaos` in small: few kills, the certain instants among them; and how kills are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.plan import AGGREGATOR, AT_TASK_END, INSTANTS, WORKER, plan
from tests.chaos.storm import JOB, Outcome, Storm

CERTAIN = ("update-sent", "checkpoint-before-rename", "consolidate-worker")
SMALL = [str(JOB), "--set", "tasks.count=2", "--set", "training.roundsPerTask=5"]


@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    kills = plan(3, 5, CERTAIN, 2, 5)
    with Storm(tmp_path / "storm", SMALL) as storm:
        storm.suffer(kills)
        storm.end()
    assert storm.killed == Counter({WORKER: 1, AGGREGATOR: 1, **{INSTANTS[name]: 1 for name in CERTAIN}})
    assert storm.rounds_at_kills[0] < storm.rounds_at_kills[1]
    with Storm(tmp_path / "calm", [*SMALL, "--transport", "in-process"]) as calm:
        calm.end()
    assert Outcome.of(tmp_path / "storm/run") == Outcome.of(tmp_path / "calm/run")


def test_a_plan_has_every_certain_instant_and_is_the_seeds() -> None:
    certain = (*INSTANTS, *AT_TASK_END)
    kills = plan(7, 100, certain, 5, 12)
    assert kills == plan(7, 100, certain, 5, 12) != plan(8, 100, certain, 5, 12)
    found = Counter(kill.target for kill in kills)
    assert found == Counter([*certain, *[AGGREGATOR] * 23, *[WORKER] * 69])
    rounds = [kill.after_round for kill in kills]
    assert rounds == sorted(rounds)
    assert (rounds[0], rounds[-1]) == (0, 47)
    assert [kill.after_round for kill in kills if kill.target in AT_TASK_END] == [11, 23, 35, 47]
    assert {kill.of_aggregator for kill in kills if "aggregator" in kill.words} == {True}
    assert {kill.of_aggregator for kill in kills if "worker" in kill.words} == {False}
