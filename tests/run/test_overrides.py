from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.run.overrides import (
    Assignment,
    check_distinct,
    parse_assignment,
    set_path,
    split_values,
)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a,b", ["a", "b"]),
        ("1", ["1"]),
        ("", [""]),
        (" a , b ", ["a", "b"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{a: 1, b: [1,2]},x", ["{a: 1, b: [1,2]}", "x"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a,b","c"', ['"a,b"', '"c"']),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        ("'it''s, x',y", ["'it''s, x'", "y"]),
        ("it's,x", ["it's", "x"]),
        ("['a]',b],c", ["['a]',b]", "c"]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_values_are_split_at_top_level_commas(text: str, pieces: list[str]) -> None:
    assert split_values(text) == pieces


@given(st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=5))
def test_lists_of_numbers_come_apart_as_they_were_joined(lists: list[list[int]]) -> None:
    assert split_values(",".join(map(str, lists))) == [str(item) for item in lists]


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("seed=0,1,2", ("seed",), (0, 1, 2)),
        ("algorithm.name=finetune,replay", ("algorithm", "name"), ("finetune", "replay")),
        ("training.optimizer.learningRate=1e-3,.1", ("training", "optimizer", "learningRate"), (0.001, 0.1)),
        ("training.localSteps=null,16", ("training", "localSteps"), (None, 16)),
        ("tasks.classes=[0,1],[1,0]", ("tasks", "classes"), ([0, 1], [1, 0])),
        ("evaluation.unseen=true,false", ("evaluation", "unseen"), (True, False)),
        ("model.parameters.channels=[8],[16, 32]", ("model", "parameters", "channels"), ([8], [16, 32])),
        ("workers.edge.replicas=2,3", ("workers", "edge", "replicas"), (2, 3)),
        ("workers.edge.dataset.labelRatio=0", ("workers", "edge", "dataset", "labelRatio"), (0,)),
        ("aggregation.quorum=80%,2", ("aggregation", "quorum"), ("80%", 2)),
    ],
)
def test_assignments_are_parsed_like_a_job_file(
    text: str, path: tuple[str, ...], values: tuple[Any, ...]
) -> None:
    assert parse_assignment(text, "--vary", several=True) == Assignment(path, values)


def test_one_value_may_contain_commas_with_set() -> None:
    assert parse_assignment("model.parameters.channels=[4, 8]", "--set", several=False).values == ([4, 8],)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "assigns nothing"),
        ("=1", "assigns nothing"),
        ("seed=", "seed= has no value"),
        ("seed=1,,2", "an empty value between commas"),
        ("seed=1,1", "has the value 1 twice"),
        ("seeds=1", "did you mean seed?"),
        ("algorithm.nam=x", "did you mean algorithm.name?"),
        ("spec.seed=1", "paths start below spec: write seed"),
        ("seed.x=1", "seed is a single value"),
        ("tasks.classes.0=1", "tasks.classes is a single value"),
        ("training.optimiser.name=sgd", "did you mean training.optimizer?"),
        ("training.local_steps=2", "did you mean training.localSteps?"),
        ("workers.edge.replica=2", "did you mean workers.edge.replicas?"),
        ("zzz=1", "known here: "),
        ("seed=[1", "is not YAML"),
    ],
)
def test_a_bad_assignment_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_assignment(text, "--vary", several=True)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--vary: ")


def test_true_and_one_are_different_values() -> None:
    assert parse_assignment("seed=1,true", "--vary", several=True).values == (1, True)


def test_set_path_leaves_the_given_mapping_alone() -> None:
    mapping = {"spec": {"tasks": {"count": 5}}}
    changed = set_path(mapping, ("tasks", "count"), 2)
    assert changed["spec"]["tasks"]["count"] == 2
    assert mapping["spec"]["tasks"]["count"] == 5


def test_set_path_makes_what_the_file_leaves_out() -> None:
    assert set_path({}, ("training", "optimizer", "momentum"), 0.5) == {
        "spec": {"training": {"optimizer": {"momentum": 0.5}}}
    }
    assert set_path({"spec": None}, ("seed",), 3) == {"spec": {"seed": 3}}
    assert set_path({}, ("workers", "edge", "replicas"), 4) == {
        "spec": {"workers": [{"name": "edge", "replicas": 4}]}
    }


def test_worker_groups_are_addressed_by_name_or_number() -> None:
    mapping = {"spec": {"workers": [{"name": "edge"}, {"name": "cloud"}]}}
    assert set_path(mapping, ("workers", "cloud", "replicas"), 2)["spec"]["workers"][1]["replicas"] == 2
    assert set_path(mapping, ("workers", "0", "replicas"), 2)["spec"]["workers"][0]["replicas"] == 2
    with pytest.raises(ConfigurationError, match="no item fog: the file has: edge, cloud"):
        set_path(mapping, ("workers", "fog", "replicas"), 2)


def test_a_path_through_a_scalar_of_the_file_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.tasks is no mapping in the file"):
        set_path({"spec": {"tasks": 3}}, ("tasks", "count"), 2)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["seed", "seed"], "seed is given twice"),
        (["algorithm", "algorithm.name"], "overlap"),
        (["model.parameters.dense", "model.parameters"], "overlap"),
    ],
)
def test_paths_must_not_meet(paths: list[str], message: str) -> None:
    assignments = [("--vary", Assignment(tuple(path.split(".")), (1,))) for path in paths]
    with pytest.raises(ConfigurationError, match=message):
        check_distinct(assignments)


def test_sister_paths_do_not_meet() -> None:
    check_distinct(
        [("--vary", Assignment(("model", "name"), (1,))), ("--vary", Assignment(("model", "names"), (1,)))]
    )
