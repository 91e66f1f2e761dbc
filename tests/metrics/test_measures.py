from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.federation.history import Counts, History
from engram.metrics.catalogue import MEASURES, explain, why_undefined
from engram.metrics.matrix import AccuracyMatrix, from_history
from engram.metrics.measures import forget_rate, forgetting, measure, task_accuracy


def near(*values: float | None) -> list[Any]:
    return [None if value is None else pytest.approx(value, abs=1e-12) for value in values]


def test_first_vector_of_the_design(vector: dict[str, Any]) -> None:
    found = measure(AccuracyMatrix.parse(vector))
    assert found["accuracy_by_task"] == near(0.7, 0.825, 2.2 / 3)
    assert found["accuracy"] == found["final_accuracy"] == pytest.approx(0.733333, abs=1e-6)
    assert found["average_incremental_accuracy"] == pytest.approx(0.752778, abs=1e-6)
    assert found["forget_rate_by_task"] == near(None, -0.1, 0.175)
    assert found["forget_rate"] == pytest.approx(0.175)
    assert found["forgetting_by_task"] == near(None, -0.1, 0.125)
    assert found["forgetting"] == pytest.approx(0.125)
    assert found["backward_transfer"] == pytest.approx(-0.075)
    assert found["forward_transfer"] == pytest.approx(0.07)
    assert found["newest_task_accuracy_by_task"] == near(0.7, 0.85, 0.8)
    assert found["intransigence_by_task"] is None
    assert found["classes_without_test"] == []


def test_ianvs_figure_is_unrounded_and_its_list_is_the_designs(vector: dict[str, Any]) -> None:
    found = measure(AccuracyMatrix.parse(vector))
    assert found["forget_rate_ianvs_by_task"] == near(0.0, 0.05, 0.85 / 6)
    assert found["forget_rate_ianvs"] == pytest.approx((0.05 + 0.85 / 6) / 3, abs=1e-15)
    assert found["forget_rate_ianvs"] != 0.063889


def test_second_vector_weights_by_counts_and_leaves_out_what_was_not_tested(vector: dict[str, Any]) -> None:
    vector["counts"] |= {"0": 50, "5": 0}
    found = measure(AccuracyMatrix.parse(vector))
    assert found["accuracy_by_task"] == near(1.1 / 1.5, 0.8, 330 / 450)
    assert found["average_incremental_accuracy"] == pytest.approx(0.755556, abs=1e-6)
    assert found["forget_rate_by_task"] == near(None, -0.1, 0.175)
    assert found["forgetting_by_task"] == near(None, 0.0, 0.075)
    assert found["backward_transfer"] == pytest.approx(-0.075)
    assert found["forward_transfer"] == pytest.approx(0.07)
    assert found["newest_task_accuracy_by_task"] == near(1.1 / 1.5, 0.85, 0.7)
    assert found["classes_without_test"] == [5]
    # Five tested entries at t = 3: the class without test samples has no entry in the index.
    assert found["forget_rate_ianvs_by_task"] == near(0.0, 0.05, 0.85 / 5)


def test_sample_wise_trap() -> None:
    """One class, images right/wrong 1100 after task 1 and 0011 after task 2: nothing is forgotten."""
    document = {
        "classes": [[0], [1]],
        "counts": {"0": 4, "1": 4},
        "accuracy": [{"0": 0.5}, {"0": 0.5, "1": 1.0}],
    }
    assert measure(AccuracyMatrix.parse(document))["forget_rate"] == 0


def test_one_task_leaves_undefined_what_needs_two() -> None:
    matrix = AccuracyMatrix.parse({"classes": [[3, 1]], "counts": [7], "accuracy": [{"3": 1, "1": 0.5}]})
    found = measure(matrix)
    assert found["accuracy"] == found["average_incremental_accuracy"] == 0.75
    undefined = {key for key, value in found.items() if value is None}
    assert undefined == {
        "forget_rate",
        "forgetting",
        "backward_transfer",
        "forward_transfer",
        "forget_rate_ianvs",
        "intransigence_by_task",
    }
    assert found["forget_rate_by_task"] == found["forgetting_by_task"] == [None]


def test_no_task_measures_nothing() -> None:
    found = measure(AccuracyMatrix.parse({"classes": [], "counts": {}, "accuracy": []}))
    assert {key for key, value in found.items() if value} == set()
    assert found["accuracy"] is None


def test_an_untested_task_is_left_out_of_every_mean(vector: dict[str, Any]) -> None:
    vector["counts"] |= {"0": 0, "1": 0}
    found = measure(AccuracyMatrix.parse(vector))
    assert found["accuracy_by_task"] == near(None, 0.85, 0.85)
    assert found["average_incremental_accuracy"] == pytest.approx(0.85)
    assert found["forget_rate_by_task"] == near(None, None, -0.05)
    assert found["forgetting_by_task"] == near(None, None, -0.05)
    assert found["backward_transfer"] == pytest.approx(0.05)
    assert found["forget_rate_ianvs_by_task"] == near(0.0, None, 0.05 / 4)
    assert found["classes_without_test"] == [0, 1]


def test_max_runs_only_from_the_tasks_own_time_on(vector: dict[str, Any]) -> None:
    """A high accuracy before a task was learned (unseen) is no best that could be forgotten."""
    vector["unseen"]["1,2"] = 1.0
    assert measure(AccuracyMatrix.parse(vector))["forgetting"] == pytest.approx(0.125)


@pytest.mark.parametrize("lacking", ["initial", "unseen", "one pair"])
def test_forward_transfer_needs_every_task_to_come(vector: dict[str, Any], lacking: str) -> None:
    if lacking == "one pair":
        del vector["unseen"]["2,3"]
    else:
        del vector[lacking]
    assert measure(AccuracyMatrix.parse(vector))["forward_transfer"] is None


def test_intransigence_is_reference_minus_newest(vector: dict[str, Any]) -> None:
    vector["reference"] = [0.8, 0.8, None]
    assert measure(AccuracyMatrix.parse(vector))["intransigence_by_task"] == near(0.1, -0.05, None)


def test_single_task_functions_agree_with_the_lists(vector: dict[str, Any]) -> None:
    matrix = AccuracyMatrix.parse(vector)
    found = measure(matrix)
    assert [forget_rate(matrix, task) for task in (1, 2, 3)] == found["forget_rate_by_task"]
    assert [forgetting(matrix, task) for task in (1, 2, 3)] == found["forgetting_by_task"]
    assert task_accuracy(matrix, 1, 3) == 0.05


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    labels = iter(draw(st.permutations(range(sum(sizes)))))
    classes = [[next(labels) for _ in range(size)] for size in sizes]
    share = st.floats(0, 1, allow_nan=False)
    seen: list[int] = []
    accuracy = []
    for task in classes:
        seen += task
        accuracy.append({str(label): draw(share) for label in seen})
    counts = {str(label): draw(st.integers(0, 50)) for label in seen}
    return {"classes": classes, "counts": counts, "accuracy": accuracy}


@settings(derandomize=True)
@given(documents())
def test_measures_stay_in_their_ranges(document: dict[str, Any]) -> None:
    found = measure(AccuracyMatrix.parse(document))
    for key in ("accuracy", "average_incremental_accuracy", "forget_rate_ianvs"):
        assert found[key] is None or -1e-12 <= found[key] <= 1 + 1e-12
    for key in ("forget_rate", "forgetting", "backward_transfer"):
        assert found[key] is None or -1 - 1e-12 <= found[key] <= 1 + 1e-12
    if found["forget_rate"] is not None and found["forgetting"] is not None:
        # Forgetting can be no less than backward transfer takes away: the best is at least the first.
        assert found["forgetting"] >= -found["backward_transfer"] - 1e-12


@settings(derandomize=True)
@given(documents(), st.randoms(use_true_random=False))
def test_the_order_of_classes_in_the_file_changes_no_bit(document: dict[str, Any], random: Any) -> None:
    shuffled = {
        **document,
        "counts": dict(random.sample(sorted(document["counts"].items()), k=len(document["counts"]))),
    }
    shuffled["accuracy"] = [
        dict(random.sample(sorted(row.items()), k=len(row))) for row in document["accuracy"]
    ]
    assert measure(AccuracyMatrix.parse(shuffled)) == measure(AccuracyMatrix.parse(document))


def test_from_history_counts_right_predictions(make_history: Callable[..., History]) -> None:
    matrix = from_history([[0, 1], [2, 3], [4, 5], [6, 7]], make_history(3))
    assert matrix.tasks == 3
    assert matrix.accuracy[2] == {0: 14 / 20, 1: 13 / 20, 2: 17 / 20, 3: 16 / 20, 4: 1.0, 5: 19 / 20}
    assert measure(matrix)["forget_rate"] == pytest.approx((0.3 + 0.3 + 0.15 + 0.15) / 4)


def test_from_history_takes_unseen_and_initial(make_history: Callable[..., History]) -> None:
    history = make_history(2)
    history.tasks[0].counts.total.update({2: 20, 3: 20})
    history.tasks[0].counts.right_unseen = {2: 3, 3: 1}
    history.initial = Counts(
        right={}, total=dict.fromkeys(range(4), 20), right_unseen={0: 2, 1: 2, 2: 1, 3: 1}
    )
    matrix = from_history([[0, 1], [2, 3]], history)
    assert matrix.initial == (0.1, 0.05)
    assert matrix.unseen == {(1, 2): 0.1}
    assert measure(matrix)["forward_transfer"] == pytest.approx(0.05)
    assert matrix.counts[0] == {0: 20, 1: 20}


def test_from_history_names_classes_without_test(make_history: Callable[..., History]) -> None:
    history = make_history(2)
    for row in history.tasks:
        del row.counts.total[1]
    matrix = from_history([[0, 1], [2, 3]], history)
    assert matrix.accuracy[1][1] is None
    assert measure(matrix)["classes_without_test"] == [1]


def test_every_undefined_scalar_has_a_reason(vector: dict[str, Any]) -> None:
    for document in (vector, {"classes": [[0]], "counts": [5], "accuracy": [{"0": 1}]}):
        matrix = AccuracyMatrix.parse({**document, "unseen": None, "initial": None})
        entries = explain(measure(matrix), matrix)
        assert [entry["key"] for entry in entries] == [item.key for item in MEASURES]
        assert all((entry["value"] is None) == bool(entry["reason"]) for entry in entries)
    assert "unseen" in why_undefined("forward_transfer", AccuracyMatrix.parse(vector))
    assert "joint" in why_undefined("intransigence", AccuracyMatrix.parse(vector))
    empty = AccuracyMatrix((), (), ())
    assert why_undefined("accuracy", empty) == "No task was finished."
