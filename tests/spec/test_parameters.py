"""Parameters of built-in things arrive typed, with defaults; those of own code as they are written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from engram.errors import ConfigurationError
from engram.spec import (
    FederatedIncrementalJob,
    aggregation_parameters,
    algorithm_parameters,
    load_yaml,
    model_parameters,
    parse_job,
)
from engram.spec.algorithms import ALGORITHMS, IcarlParameters, NoParameters
from engram.spec.job import Metadata
from engram.spec.parameters import AGGREGATIONS, CLASS_COUNTS, DATASETS, MODELS, CnnParameters, KrumParameters

Parse = Callable[[str], FederatedIncrementalJob]


def test_parameters_have_their_type_and_defaults(parse: Parse) -> None:
    job = parse("{algorithm: {name: icarl, parameters: {exemplarsPerWorker: 20}}, model: {name: cnn}}")
    assert algorithm_parameters(job) == IcarlParameters(exemplars_per_worker=20)
    assert model_parameters(job) == CnnParameters(channels=[16, 32], dense=96)
    assert aggregation_parameters(job) == NoParameters()


def test_parameters_of_krum(parse: Parse) -> None:
    job = parse("{aggregation: {name: krum, parameters: {byzantine: 0}}}")
    assert aggregation_parameters(job) == KrumParameters(byzantine=0, keep=1)


def test_own_code_gets_what_is_written(parse: Parse) -> None:
    job = parse("{algorithm: {name: 'mine:Algorithm', parameters: {rate: 1e-3, deep: {x: [on, 012]}}}}")
    assert algorithm_parameters(job) == {"rate": 0.001, "deep": {"x": [True, 10]}}


def test_a_job_that_was_not_parsed_is_judged_here(parse: Parse) -> None:
    job = FederatedIncrementalJob.model_validate(
        {"metadata": {"name": "a"}, "spec": {"algorithm": {"name": "fedprox", "parameters": {"mu": -1}}}}
    )
    with pytest.raises(ConfigurationError, match=r"spec\.algorithm\.parameters\.mu: -1 is too small"):
        algorithm_parameters(job)


BATCH = {"name": "cnn", "parameters": {"norm": "batch"}}


@pytest.mark.parametrize("part", ["algorithm", "aggregation", "model"])
def test_every_default_is_valid_in_a_file(part: str) -> None:
    known = {"algorithm": ALGORITHMS, "aggregation": AGGREGATIONS, "model": MODELS}[part]
    for name, model in known.items():
        written = {"name": name, "parameters": model().dump()}
        parse_job(
            {
                "apiVersion": "engram.dev/v1alpha1",
                "kind": "FederatedIncrementalJob",
                "metadata": {"name": "a"},
                # Of the models' normalisations every algorithm can do with batch.
                "spec": {
                    "model": BATCH,
                    part: written,
                    "workers": [{"replicas": 5}],
                    "dataset": {"labelRatio": 0.5},
                },
            }
        )


def test_class_counts_are_of_known_data_sets() -> None:
    assert set(CLASS_COUNTS) < set(DATASETS)


def test_metadata_keeps_what_kubernetes_adds() -> None:
    metadata = Metadata.model_validate({"name": "a", "labels": {"team": "blue"}})
    assert metadata.dump()["labels"] == {"team": "blue"}


def test_the_package_imports_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "jinja2", "rich", "msgpack")
    code = f"import engram.spec, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_survives_yaml(parse: Parse) -> None:
    import yaml

    job = parse("{aggregation: {quorum: 80%}, training: {optimizer: {learningRate: 1e-5}}}")
    assert parse_job(load_yaml(yaml.safe_dump(job.dump()))) == job
