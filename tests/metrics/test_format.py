from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.metrics.matrix import AccuracyMatrix
from engram.metrics.measures import measure


def test_file_and_document_are_the_same(vector: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps(vector))
    assert AccuracyMatrix.load(path) == AccuracyMatrix.parse(vector)


@pytest.mark.parametrize(
    "counts",
    [
        [100, 100, 100],
        [{"0": 100, "1": 100}, {"2": 100, "3": 100}, {"4": 100, "5": 100}],
        [{str(label): 100 for label in range(2 * task)} for task in (1, 2, 3)],
        [100, {"2": 100, "3": 100}, 100],
    ],
    ids=["a number a task", "new classes a task", "all seen a task", "mixed"],
)
def test_counts_may_be_a_list_with_one_entry_a_task(vector: dict[str, Any], counts: Any) -> None:
    assert AccuracyMatrix.parse({**vector, "counts": counts}) == AccuracyMatrix.parse(vector)


def test_counts_that_change_between_tasks_survive_a_round_trip(vector: dict[str, Any]) -> None:
    vector["counts"] = [100, {"0": 50, "1": 100, "2": 10, "3": 10}, 70]
    matrix = AccuracyMatrix.parse(vector)
    assert matrix.counts[2] == {0: 50, 1: 100, 2: 10, 3: 10, 4: 70, 5: 70}
    assert AccuracyMatrix.parse(json.loads(json.dumps(matrix.dump()))) == matrix


def test_dump_reproduces_every_measure_bit_by_bit(vector: dict[str, Any]) -> None:
    vector |= {"reference": [1 / 3, None, 0.1 + 0.2], "counts": vector["counts"] | {"5": 0, "1": 7}}
    matrix = AccuracyMatrix.parse(vector)
    again = AccuracyMatrix.parse(json.loads(json.dumps(matrix.dump())))
    assert again == matrix
    assert json.dumps(measure(again)) == json.dumps(measure(matrix))


def test_a_class_without_test_samples_may_be_absent_null_or_any_number(vector: dict[str, Any]) -> None:
    vector["counts"]["5"] = 0
    given = AccuracyMatrix.parse(vector)
    vector["accuracy"][2]["5"] = None
    null = AccuracyMatrix.parse(vector)
    del vector["accuracy"][2]["5"]
    assert given == null == AccuracyMatrix.parse(vector)


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "class in two tasks",
        {"classes": [[0, 1], [2, 1], [4, 5]]},
        "classes[1]",
        "class 1 is in tasks 1 and 2",
    ),
    ("class twice in a task", {"classes": [[0, 0], [2, 3], [4, 5]]}, "classes[0]", "task 1 twice"),
    ("empty task", {"classes": [[0, 1], [], [4, 5]]}, "classes[1]", "no class"),
    ("label that is none", {"classes": [[0, "b"], [2, 3], [4, 5]]}, "classes[0]", "no label id"),
    ("label that is a boolean", {"classes": [[0, True], [2, 3], [4, 5]]}, "classes[0]", "no label id"),
    ("classes no list", {"classes": {"0": 1}}, "classes", "must be a list"),
    ("classes not nested", {"classes": [0, 1, 2]}, "classes[0]", "must be a list"),
    ("accuracy above 1", {"accuracy.1.2": 1.01}, 'accuracy[1]["2"]', "outside [0, 1]"),
    ("accuracy below 0", {"accuracy.1.2": -0.01}, 'accuracy[1]["2"]', "outside [0, 1]"),
    ("accuracy in percent", {"accuracy.1.2": 80}, 'accuracy[1]["2"]', "0.8"),
    ("accuracy as text", {"accuracy.1.2": "0.8"}, 'accuracy[1]["2"]', "no accuracy"),
    ("accuracy a boolean", {"accuracy.1.2": True}, 'accuracy[1]["2"]', "no accuracy"),
    ("accuracy NaN", {"accuracy.1.2": float("nan")}, 'accuracy[1]["2"]', "no accuracy"),
    ("accuracy huge", {"accuracy.1.2": 10**5000}, 'accuracy[1]["2"]', "a huge number is outside"),
    ("accuracy null", {"accuracy.1.2": None}, 'accuracy[1]["2"]', "100 test samples but no accuracy"),
    ("class missing", {"accuracy": [{"0": 1}, {}, {}]}, "accuracy[0]", "class 1 missing"),
    ("class of a later task", {"accuracy.0.4": 0.5}, "accuracy[0]", "unknown class '4'"),
    ("unknown class", {"accuracy.2.6": 0.5}, "accuracy[2]", "unknown class '6'"),
    ("class not canonical", {"accuracy.2.00": 0.5}, "accuracy[2]", "unknown class '00'"),
    ("too few tasks", {"accuracy": [{"0": 1, "1": 1}]}, "accuracy", "1 entries for 3 tasks"),
    ("accuracy no list", {"accuracy": {"0": 1}}, "accuracy", "must be a list"),
    ("accuracy row no mapping", {"accuracy": [[1], [1], [1]]}, "accuracy[0]", "must be a mapping"),
    ("count missing", {"counts": {"0": 1}}, "counts", "classes 1, 2, 3, 4, 5 missing"),
    ("count unknown", {"counts.9": 1}, "counts", "unknown class '9'"),
    ("count negative", {"counts.2": -1}, 'counts["2"]', "no number of test samples"),
    ("count a fraction", {"counts.2": 1.5}, 'counts["2"]', "no number of test samples"),
    ("counts a number", {"counts": 5}, "counts", "must be a mapping"),
    ("counts too short", {"counts": [5, 5]}, "counts", "2 entries for 3 tasks"),
    ("counts row short", {"counts": [{"0": 5}, 5, 5]}, "counts[0]", "class 1 missing"),
    ("counts row too early", {"counts": [{"0": 5, "1": 5, "2": 5}, 5, 5]}, "counts[0]", "unknown class '2'"),
    ("initial short", {"initial": [0.1]}, "initial", "1 entries for 3 tasks"),
    ("initial outside", {"initial": [0.1, 2, 0.1]}, "initial[1]", "outside [0, 1]"),
    ("reference outside", {"reference": [0.1, 0.1, -1]}, "reference[2]", "outside [0, 1]"),
    ("unseen backwards", {"unseen": {"2,1": 0.1}}, 'unseen["2,1"]', "no later task"),
    ("unseen from zero", {"unseen": {"0,1": 0.1}}, 'unseen["0,1"]', "no later task"),
    ("unseen too far", {"unseen": {"1,4": 0.1}}, 'unseen["1,4"]', "no later task"),
    ("unseen no pair", {"unseen": {"12": 0.1}}, 'unseen["12"]', "no later task"),
    ("unseen outside", {"unseen": {"1,2": 1.1}}, 'unseen["1,2"]', "outside [0, 1]"),
    ("unseen a list", {"unseen": [0.1]}, "unseen", "must be a mapping"),
    ("unknown field", {"acuracy": []}, "acuracy", "did you mean accuracy?"),
]


@pytest.mark.parametrize(
    ("changes", "field", "problem"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_input_names_file_field_and_problem(
    vector: dict[str, Any], tmp_path: Path, changes: dict[str, Any], field: str, problem: str
) -> None:
    for path, value in changes.items():
        *parents, last = path.split(".")
        target: Any = vector
        for parent in parents:
            target = target[int(parent) if isinstance(target, list) else parent]
        target[last] = value
    with pytest.raises(ConfigurationError) as caught:
        AccuracyMatrix.parse(vector, "matrix.json")
    assert caught.value.exit_code == 42
    assert str(caught.value).startswith(f"matrix.json: {field}: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize("field", ["classes", "counts", "accuracy"])
def test_a_missing_field_is_named(vector: dict[str, Any], field: str) -> None:
    del vector[field]
    with pytest.raises(ConfigurationError, match=f"^{field}: is missing"):
        AccuracyMatrix.parse(vector)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON: line 1, column 2"),
        ("", "not JSON"),
        ("[1]", "must be a mapping"),
        ("null", "must be a mapping"),
        ('{"classes": [[0]], "classes": [[1]]}', 'key "classes" is there twice'),
        ('{"accuracy": [{"0": NaN}]}', "NaN is not JSON"),
        ('{"accuracy": [{"0": Infinity}]}', "Infinity is not JSON"),
        ('{"accuracy": [{"0": ' + "9" * 5000 + "}]}", "cannot|read|missing|digits"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_json_mapping(tmp_path: Path, text: str | bytes, problem: str) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=problem) as caught:
        AccuracyMatrix.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        AccuracyMatrix.load(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        AccuracyMatrix.load(tmp_path)
