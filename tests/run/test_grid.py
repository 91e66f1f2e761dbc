from __future__ import annotations

import copy
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.run.grid import LONGEST_NAME, apply_sets, expand


def names(document: dict[str, Any], *varies: str, sets: tuple[str, ...] = ()) -> list[str]:
    return [cell.name for cell in expand(document, sets, varies, "job.yaml").cells]


def test_the_product_in_the_order_of_the_options(document: dict[str, Any]) -> None:
    assert names(document, "algorithm.name=finetune,replay", "seed=0,1,2") == [
        "algorithm=finetune,seed=0",
        "algorithm=finetune,seed=1",
        "algorithm=finetune,seed=2",
        "algorithm=replay,seed=0",
        "algorithm=replay,seed=1",
        "algorithm=replay,seed=2",
    ]


def test_every_cell_is_the_job_with_its_values(document: dict[str, Any]) -> None:
    document["spec"]["tasks"]["classOrder"] = "listed"
    before = copy.deepcopy(document)
    grid = expand(document, ["training.batchSize=4"], ["seed=3,4", "tasks.classes=[0,1,2,3]"], "job.yaml")
    assert [cell.job.spec.seed for cell in grid.cells] == [3, 4]
    assert {cell.job.spec.training.batch_size for cell in grid.cells} == {4}
    assert grid.cells[0].job.spec.tasks.classes == [0, 1, 2, 3]
    assert grid.cells[0].values == {"seed": 3, "tasks.classes": [0, 1, 2, 3]}
    assert document == before


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ("aggregation.quorum=80%,1", ["quorum=80", "quorum=1"]),
        ("model.parameters.channels=[4],[4,8]", ["channels=4", "channels=4+8"]),
        ("dataset.partition={method: iid}", ["partition=method-iid"]),
        ("training.optimizer.learningRate=0.05", ["learningRate=0.05"]),
        ("training.localSteps=null,3", ["localSteps=null", "localSteps=3"]),
    ],
)
def test_names_are_fit_for_a_file_system(document: dict[str, Any], vary: str, expected: list[str]) -> None:
    assert names(document, vary) == expected


def test_equal_last_words_are_told_apart(document: dict[str, Any]) -> None:
    assert names(document, "algorithm.name=replay", "model.name=cnn") == ["algorithm=replay,model=cnn"]
    document["spec"]["workers"].append({"name": "cloud"})
    assert names(document, "workers.edge.replicas=1", "workers.cloud.replicas=2") == [
        "workers.edge.replicas=1,workers.cloud.replicas=2"
    ]


def test_names_that_would_collide_get_numbers(document: dict[str, Any]) -> None:
    found = names(document, "dataset.path=a/b,a_b,A_B")
    assert found == ["path=a_b", "path=a_b-2", "path=A_B-3"]


def test_long_names_are_cut_and_stay_different(document: dict[str, Any]) -> None:
    found = names(document, f"dataset.path={'x' * 300}1,{'x' * 300}2")
    assert len(set(found)) == 2
    assert all(len(name) <= LONGEST_NAME for name in found)


def test_parameters_of_other_algorithms_are_dropped_and_said_so(document: dict[str, Any]) -> None:
    grid = expand(document, [], ["algorithm.name=finetune,replay,icarl"], "job.yaml")
    assert [cell.job.spec.algorithm.parameters for cell in grid.cells] == [
        {},
        {"exemplarsPerWorker": 4},
        {"exemplarsPerWorker": 4},
    ]
    assert grid.notes == (
        "algorithm.parameters.exemplarsPerWorker is dropped for finetune, which does not know it",
    )


def test_a_parameter_that_none_knows_is_an_error_that_names_the_cell(document: dict[str, Any]) -> None:
    document["spec"]["algorithm"]["parameters"] = {"exemplarPerWorker": 4}
    with pytest.raises(ConfigurationError, match=r"algorithm\.name=.*exemplarPerWorker"):
        expand(document, [], ["algorithm.name=finetune,replay"], "job.yaml")


def test_a_varied_parameter_multiplies_only_those_that_know_it(document: dict[str, Any]) -> None:
    grid = expand(
        document,
        [],
        ["algorithm.name=finetune,replay", "algorithm.parameters.exemplarsPerWorker=4,8"],
        "job.yaml",
    )
    assert [cell.name for cell in grid.cells] == [
        "algorithm=finetune",
        "algorithm=replay,exemplarsPerWorker=4",
        "algorithm=replay,exemplarsPerWorker=8",
    ]
    assert any("runs once" in note for note in grid.notes)


def test_model_and_aggregation_drop_parameters_alike(document: dict[str, Any]) -> None:
    grid = expand(document, [], ["model.name=cnn,lenet5"], "job.yaml")
    assert grid.cells[1].job.spec.model.parameters == {}


def test_nothing_is_dropped_when_the_algorithm_is_not_varied(document: dict[str, Any]) -> None:
    document["spec"]["algorithm"]["name"] = "finetune"
    with pytest.raises(ConfigurationError, match="exemplarsPerWorker"):
        expand(document, [], ["seed=0,1"], "job.yaml")


def test_the_whole_grid_is_validated(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"job\.yaml with tasks\.count=9"):
        expand(document, [], ["tasks.count=2,9"], "job.yaml")


@pytest.mark.parametrize(
    ("sets", "varies", "message"),
    [
        ([], ["seed=1", "seed=2"], "seed is given twice"),
        (["seed=1"], ["seed=2"], "seed is given twice"),
        (
            [],
            [
                "seed=" + ",".join(map(str, range(101))),
                "training.batchSize=" + ",".join(map(str, range(1, 101))),
            ],
            "10100 cells",
        ),
    ],
)
def test_grids_that_are_refused(
    document: dict[str, Any], sets: list[str], varies: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        expand(document, sets, varies, "job.yaml")


def test_sets_are_applied_in_order(document: dict[str, Any]) -> None:
    changed = apply_sets(document, ["seed=7", "workers.edge.replicas=5"])
    assert changed["spec"]["seed"] == 7
    assert changed["spec"]["workers"][0]["replicas"] == 5
