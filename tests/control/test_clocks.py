"""The operator's clock and those that write what it reads differ: by hours where nobody sets them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engram.spec.names import Condition, Reason
from engram_operator.evidence import stuck_pods
from engram_operator.model import PodView
from engram_operator.reconcile.verdict import End, Later, verdict
from engram_operator.status import Content, Statement, build_status, notes_of, write_in
from engram_operator.status.explain import slow_after
from engram_operator.status.standing import coming
from tests.control.builders import NOW, ago, ended, false, job_view, pod, true, waiting

HOUR = 3600.0
DONE = job_view(conditions={"Complete": true(since=ago(-HOUR))})
SUMMARY = '{"outcome":"complete"}'


@pytest.mark.parametrize("pods", [(), (pod(deleting=ago(5)),), (ended(code=1),)])
def test_a_verdict_of_the_future_is_not_waited_for_where_nobody_has_a_last_word(
    pods: tuple[PodView, ...],
) -> None:
    assert isinstance(verdict(DONE, pods, NOW), End)


def test_a_pod_whose_end_is_not_known_yet_is_waited_for_by_any_clock() -> None:
    assert verdict(DONE, [pod()], NOW) == Later(10.0)
    end = verdict(DONE, [ended(message=SUMMARY)], NOW)
    assert isinstance(end, End)
    assert end.summary is not None


@pytest.mark.parametrize(("age", "wait"), [(0, 10.0), (4, 6.0), (-4, 10.0), (-10, 10.0)])
def test_clocks_that_hardly_differ_wait_as_long_as_it_takes(age: float, wait: float) -> None:
    given = job_view(conditions={"Complete": true(since=ago(age))})
    assert verdict(given, (), NOW) == Later(wait)


def test_nothing_that_comes_by_itself_is_looked_for_later_than_it_may_take() -> None:
    creating = waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(-HOUR))})
    assert slow_after(creating, NOW) == 90.0
    assert stuck_pods([creating], NOW) == ((creating, 0.0),)
    unbound = false("Unschedulable", "pod has unbound immediate PersistentVolumeClaims", ago(-HOUR))
    assert slow_after(waiting(0, "", conditions={"PodScheduled": unbound}), NOW) == 30.0


def test_counts_of_a_job_that_comes_up_are_written_within_half_a_minute() -> None:
    statements = coming(Statement(True, Reason.VALID))
    later = ago(-HOUR)
    old = build_status({}, statements, Content(started=later, workers={"running": 0}), later, 1)
    new = build_status(old, statements, Content(started=later, workers={"running": 1}), NOW, 1)
    assert write_in(old, new, NOW) == 30.0


def test_an_event_is_not_withheld_by_a_transition_of_the_future() -> None:
    def degraded(true: bool, since: timedelta) -> dict[str, object]:
        statements = {
            **coming(Statement(True, Reason.VALID)),
            Condition.PROGRESSING: Statement(True, Reason.TRAINING),
        }
        statements[Condition.DEGRADED] = Statement(
            true, Reason.UPDATES_REJECTED if true else Reason.AS_EXPECTED
        )
        return build_status({}, statements, Content(started=NOW - timedelta(days=1)), NOW + since, 1)

    old = degraded(False, timedelta(hours=1))
    notes = notes_of(old, degraded(True, timedelta()), NOW)
    assert [note.reason for note in notes] == [Reason.UPDATES_REJECTED]
