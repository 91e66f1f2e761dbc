"""The tables: every row leads to something that engram has, and docs/importing.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.importing.counterparts import (
    ALGORITHM_ROWS,
    HYPERPARAMETERS,
    METRICS,
    MODEL_WORDS,
    dataset_in,
    dataset_of,
    job_name,
    model_of,
)
from engram.report.rank import BY_KEY
from engram.run.overrides import check_path
from engram.spec.algorithms import ALGORITHMS
from engram.spec.parameters import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "importing.md"


def test_every_algorithm_leads_to_one_of_this_version() -> None:
    for row in ALGORITHM_ROWS:
        assert any(name in ALGORITHMS for name in row.nearest), row


def test_every_field_is_one() -> None:
    for field in HYPERPARAMETERS.values():
        check_path(field.removeprefix("spec.").split("."), "--vary")


def test_every_measure_can_rank_but_the_matrix() -> None:
    assert {known.name for known in METRICS.values()} - set(BY_KEY) == {"the accuracy matrix"}


def test_every_network_is_one() -> None:
    assert {model for _, model in MODEL_WORDS} <= set(MODELS)


def test_the_page_shows_every_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in ALGORITHM_ROWS:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {', '.join(row.words)} |"))
        assert ", else ".join(f"`{name}`" for name in row.nearest) in line
    for name, known in METRICS.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
        assert known.name in line


@pytest.mark.parametrize(
    ("name", "known"),
    [("cifar_100", "cifar100"), ("Fashion MNIST", "fashion-mnist"), ("npz", ""), ("medicalQA", ""), ("", "")],
)
def test_data_sets_by_name(name: str, known: str) -> None:
    assert dataset_of([name]) == known


@pytest.mark.parametrize(
    ("url", "known"),
    [("/a/cifar100/x.txt", "cifar100"), ("./mnist_train.csv", "mnist"), ("/data/minstrel/x", "")],
)
def test_data_sets_in_paths(url: str, known: str) -> None:
    assert dataset_in(url) == known


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("/x/restnet.pb", "resnet18"),
        ("ResNet32.pth", "resnet32"),
        ("/cnn/lenet.h5", "lenet5"),
        ("cnn.pb", "cnn"),
        ("/cnn/frozen.pb", ""),
        ("", ""),
    ],
)
def test_networks_by_the_files_name(url: str, model: str) -> None:
    assert model_of(url) == model


@pytest.mark.parametrize(("written", "name"), [("", "job"), ("---", "job"), ("A b", "a-b"), ("1", "job-1")])
def test_names_of_jobs(written: str, name: str) -> None:
    assert job_name(written) == name
