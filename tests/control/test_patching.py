from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engram_operator.pace import IGNORED_SECONDS, Pace
from engram_operator.patching import decisive, difference
from tests.control.edge import KEY, FakeClock

VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3),
    max_leaves=10,
)
STATUSES = st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4)


def merged(old: Any, patch: Any) -> Any:
    """RFC 7396, as written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(STATUSES, STATUSES)
def test_the_difference_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merged(old, difference(old, new)) == new


@given(STATUSES)
def test_there_is_no_difference_between_equals(status: dict[str, Any]) -> None:
    assert difference(status, status) == {}


def test_only_what_differs_is_in_it() -> None:
    old = {"phase": "Running", "display": {"task": "1/5", "round": "3"}, "tasks": [1], "message": "x"}
    new = {"phase": "Running", "display": {"task": "2/5"}, "tasks": [1, 2]}
    assert difference(old, new) == {
        "display": {"task": "2/5", "round": None},
        "tasks": [1, 2],
        "message": None,
    }


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def test_a_new_phase_or_condition_is_decisive_and_figures_are_not() -> None:
    old = {"phase": "Running", "conditions": [condition("Ready", "False", "Training", "round 1")]}
    assert not decisive(old, {**old, "progress": {"round": 2}})
    assert not decisive(old, {**old, "conditions": [condition("Ready", "False", "Training", "round 2")]})
    assert not decisive(old, {**old, "conditions": [condition("Ready", "False", "Consolidating", "task 1")]})
    assert decisive(old, {**old, "phase": "Succeeded"})
    assert decisive(old, {**old, "observedGeneration": 2})
    assert decisive(old, {**old, "conditions": [condition("Ready", "True", "Finished")]})
    assert decisive(old, {**old, "conditions": [*old["conditions"], condition("Degraded", "True", "x")]})


def test_the_pace_of_writes() -> None:
    clock = FakeClock()
    pace = Pace(clock.monotonic)
    first, second = {"phase": "Running", "round": 1}, {"phase": "Running", "round": 2}
    assert pace.wait(KEY, {}, first, 2.0) == 0.0
    pace.written(KEY, first)
    clock.seconds += 0.5
    assert pace.wait(KEY, first, second, 2.0) == 1.5
    assert pace.wait(KEY, first, {"phase": "Failed"}, 2.0) == 0.0
    clock.seconds += 1.5
    assert pace.wait(KEY, first, second, 2.0) == 0.0
    assert pace.wait(KEY, {"phase": "Running"}, first, 2.0) == IGNORED_SECONDS - 2.0
    pace.forget(KEY)
    assert pace.wait(KEY, {"phase": "Running"}, first, 2.0) == 0.0
