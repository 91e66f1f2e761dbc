"""Every parameter of every algorithm does something: with another value another federation comes out.

What it does is tested beside each algorithm by its equation. Here no field of the schema may be one that the
code has forgotten, which a test of units cannot see.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engram.spec.algorithms import ALGORITHMS

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from tests.learning.conftest import MakeJob, MakeWorld


@dataclass(frozen=True)
class Other:
    """Another value of a parameter, and what else must be so that it can matter."""

    value: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 6
    """Of a round: new rows are longer than old ones, and are shortened, only after many."""


BASIS: Mapping[str, Mapping[str, Any]] = {
    # Few are sure of anything after a dozen steps; thresholds are low where their height is not the question.
    "joint": {"unlabelledWeight": 1, "threshold": 0.3},
    "semifci": {"threshold": 0.4, "exemplarsPerWorker": 12, "helpers": 2},
    "fedcimatch": {"threshold": 0.4, "exemplarsPerWorker": 12},
    "discmatch": {"threshold": 0.6, "exemplarsPerWorker": 12},
    "target": {"generatorBatch": 8, "syntheticImages": 16, "generatorSteps": 3, "studentSteps": 2},
    "mfcl": {"generatorBatch": 8, "generatorSteps": 3},
}
BIC = {"classifierCorrection": "bic", "exemplarsPerWorker": 40}
PROXY = {"proxyServer": "reconstruct", "acceptPrivacyRisk": True}
EXEMPLARS = {
    "exemplarsPerWorker": Other(8),
    "classifierCorrection": Other("bic", {"exemplarsPerWorker": 40}),
    "heldOutShare": Other(0.5, BIC),
}
GLFC = {
    **EXEMPLARS,
    "gradientCompensation": Other(False),
    "classificationStrength": Other(0.25),
    "distillationStrength": Other(0.25),
    "proxyServer": Other("reconstruct", {"acceptPrivacyRisk": True}),
    "prototypeNoise": Other(0.1, PROXY),
}
PSEUDO = {"unlabelledWeight": Other(0.5), "threshold": Other(0.9), "warmupRounds": Other(0)}
SEMI = {
    **PSEUDO,
    **EXEMPLARS,
    "thresholds": Other("adaptive", {"threshold": 0.7}),
    "compensationWeight": Other(0.25),
    "fusionWeight": Other(0.5),
    "temperature": Other(1.0),
    "bestMomentum": Other(0.5),
}
SYNTHESIS = {
    "noiseSize": Other(32),
    "generatorWidth": Other(8),
    "generatorBatch": Other(16),
    "generatorLearningRate": Other(0.01),
    "statistics": Other(0.0),
    "syntheticBatch": Other(4),
    "generatorSteps": Other(5),
}
OTHERS: Mapping[str, Mapping[str, Other]] = {
    "finetune": {},
    "scaffold": {},
    "joint": {**PSEUDO, "unlabelledWeight": Other(0), "upfront": Other(True)},
    "fedprox": {"mu": Other(1.0)},
    "fedlwf": {"temperature": Other(1.0), "strength": Other(1.0), "unlabelled": Other(True)},
    "fedewc": {"strength": Other(1.0), "decay": Other(0.1), "unlabelled": Other(True)},
    "replay": {
        **EXEMPLARS,
        "classifierCorrection": Other("none", steps=40),
        "weightAlignment": Other(False, steps=40),
    },
    "icarl": {"exemplarsPerWorker": Other(8), "temperature": Other(1.0), "strength": Other(0.5)},
    "glfc": GLFC,
    "lga": GLFC,
    "bic": {
        **EXEMPLARS,
        "exemplarsPerWorker": Other(12, {"heldOutShare": 0.5}),
        "classifierCorrection": Other("none"),
        "heldOutShare": Other(0.5),
        "temperature": Other(1.0),
        "strength": Other(0.9),
    },
    "semifci": {
        **SEMI,
        "helpers": Other(1),
        "helperChoice": Other("random", {"helpers": 1, "agreement": "required"}),
        "agreement": Other("required"),
        "candidates": Other("seen"),
        "pseudoExemplars": Other(False),
        "compensation": Other("gradients"),
    },
    "fedcimatch": {
        **SEMI,
        "candidates": Other("task"),
        "pseudoExemplars": Other(True),
        "compensation": Other("prevalence"),
    },
    "discmatch": {
        **PSEUDO,
        "exemplarsPerWorker": Other(8),
        "candidates": Other("seen"),
        "temperature": Other(1.0),
        "strength": Other(0.5),
        "distilUnlabelled": Other(False),
        "pseudoExemplars": Other(False),
        "classifier": Other("means"),
        "shrinkage": Other(0.5),
    },
    "feddyn": {"alpha": Other(1.0)},
    "fot": {"threshold": Other(0.5), "sketch": Other(4)},
    "target": {
        **SYNTHESIS,
        "strength": Other(1.0),
        "temperature": Other(1.0),
        "newRowsOnly": Other(False),
        "syntheticImages": Other(8),
        "studentSteps": Other(5),
        "boundary": Other(10.0),
    },
    "mfcl": {
        **SYNTHESIS,
        "diversity": Other(10.0),
        "smoothness": Other(1.0),
        "fineTuning": Other(0.5),
        "distillation": Other(1.0),
    },
}
NOTHING: Mapping[str, Mapping[str, Any]] = {
    "glfc": {"acceptPrivacyRisk": True},  # a person's consent
    "lga": {"acceptPrivacyRisk": True},
    "fedcimatch": {"helpers": 0, "helperChoice": "random", "agreement": "required"},  # it has no helpers
}
"""Parameters that are to change nothing."""

CASES = [(algorithm, name) for algorithm, others in OTHERS.items() for name in others]


def test_every_parameter_is_here() -> None:
    assert {name: others.keys() | NOTHING.get(name, {}).keys() for name, others in OTHERS.items()} == {
        name: {schema.alias or field for field, schema in kind.model_fields.items()}
        for name, kind in ALGORITHMS.items()
    }


@pytest.mark.parametrize(("algorithm", "name"), CASES, ids=[f"{a}-{name}" for a, name in CASES])
def test_another_value_makes_another_federation(
    algorithm: str, name: str, make_job: MakeJob, make_world: MakeWorld
) -> None:
    other = OTHERS[algorithm][name]
    basis = {**BASIS.get(algorithm, {}), **other.given}
    before, after = (
        outcome(algorithm, json.dumps(parameters), other.steps, make_job, make_world)
        for parameters in (basis, {**basis, name: other.value})
    )
    assert before != after


@pytest.mark.parametrize("algorithm", NOTHING)
def test_what_is_to_change_nothing_changes_nothing(
    algorithm: str, make_job: MakeJob, make_world: MakeWorld
) -> None:
    basis = BASIS.get(algorithm, {})
    for name, value in NOTHING[algorithm].items():
        before, after = (
            outcome(algorithm, json.dumps(parameters), 6, make_job, make_world)
            for parameters in (basis, {**basis, name: value})
        )
        assert before == after


@pytest.mark.parametrize("algorithm", OTHERS)
def test_the_same_values_make_the_same_federation(
    algorithm: str, make_job: MakeJob, make_world: MakeWorld
) -> None:
    given = algorithm, json.dumps(BASIS.get(algorithm, {})), 6, make_job, make_world
    assert outcome.__wrapped__(*given) == outcome(*given)


@functools.cache
def outcome(algorithm: str, parameters: str, steps: int, make_job: MakeJob, make_world: MakeWorld) -> str:
    """Return a digest of what a federation ends with: the weights and what its aggregator keeps."""
    model = {"channels": [4], "dense": 8, "norm": "batch" if algorithm in ("target", "mfcl") else "none"}
    job = make_job(
        algorithm,
        json.loads(parameters),
        workers=3,
        dataset={"labelRatio": 0.34},
        training={"localSteps": steps},
        model={"name": "cnn", "parameters": model},
    )
    made = make_world(job)
    weights, _ = made.run()
    return digest({**weights, **made.central.state()})


def digest(tensors: Tensors) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()
