"""What engram has for the names that Ianvs and Sedna files use: data sets, algorithms, networks, measures.

Every row says how far the two are the same; "nearest" is no more than that. docs/importing.md has the
tables for readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engram.spec.algorithms import ALGORITHMS
from engram.spec.base import Spec
from engram.spec.parameters import AGGREGATIONS, DATASETS, MODELS

OWN_CODE = "code of your own goes in as package.module:Class (docs/own-code.md)"


@dataclass(frozen=True)
class Counterpart:
    """What a name of the input is taken for."""

    name: str
    remark: str


@dataclass(frozen=True)
class Algorithm:
    """A row of the table of algorithms."""

    words: tuple[str, ...]
    """What the name of the input holds, case and punctuation aside."""
    nearest: tuple[str, ...]
    """Names of engram, best first: the first that this version has is taken."""
    remark: str


ALGORITHM_ROWS: tuple[Algorithm, ...] = (
    Algorithm(
        ("SemiFCI", "FCI-SSL", "FedCiMatch"),
        ("semifci", "icarl"),
        "pseudo-labels on unlabelled data, agreement of helpers and its augmentations differ or are missing",
    ),
    Algorithm(
        ("FediCarl", "iCaRL"),
        ("icarl",),
        "exemplars, distillation and nearest means; pseudo-labels on unlabelled data are not part of it",
    ),
    Algorithm(
        ("GLFC",), ("glfc", "icarl"), "gradient compensation and relation distillation differ or are missing"
    ),
    Algorithm(("LGA",), ("lga", "glfc", "icarl"), "gradient weights for each old task differ or are missing"),
    Algorithm(
        ("MFCL",), ("fedlwf",), "with model.parameters.norm: batch write mfcl, which trains a generator, too"
    ),
    Algorithm(
        ("TARGET",), ("fedlwf",), "with model.parameters.norm: batch write target, which makes images, too"
    ),
    Algorithm(("FedProx",), ("fedprox",), "the proximal term is mu/2 ||w - w_global||^2, mu 0.01"),
    Algorithm(("EWC",), ("fedewc",), "online Fisher information with decay"),
    Algorithm(("LwF",), ("fedlwf",), "distillation from the last task's global model"),
    Algorithm(("replay", "rehearsal"), ("replay",), "exemplars by herding and weight alignment"),
    Algorithm(
        ("FedAvg", "FCIL", "finetune"),
        ("finetune",),
        "local SGD on the current task, averaged; basemodel.py itself is not run",
    ),
)
"""Longer and more particular names first: `fedavg` is part of many names."""

WHOLE_WORDS = frozenset({"LGA", "TARGET"})
"""Words that must stand alone in a name: `target` is part of too many."""

MODEL_WORDS: tuple[tuple[str, str], ...] = (
    ("resnet32", "resnet32"),
    ("resnet", "resnet18"),
    ("restnet", "resnet18"),
    ("lenet", "lenet5"),
    ("cnn", "cnn"),
)

METRICS: dict[str, Counterpart] = {
    "accuracy": Counterpart("accuracy", "computed by engram over the test samples of all classes seen"),
    "task_avg_acc": Counterpart(
        "accuracy", "Ianvs averages over entries of the test index after the last task, engram over samples"
    ),
    "forget_rate": Counterpart(
        "forget_rate_ianvs",
        "Ianvs' formula, over classes and not index entries; forget_rate is the published one",
    ),
    "BWT": Counterpart("backward_transfer", "formula of GEM 2017; Ianvs has another"),
    "FWT": Counterpart("forward_transfer", "formula of GEM 2017; Ianvs has another"),
    "MATRIX": Counterpart("the accuracy matrix", "matrix.json of the run directory"),
}
"""By the name that Ianvs' metric has."""

NO_METRICS: dict[str, str] = {
    "samples_transfer_ratio": "no samples leave a worker",
}

HYPERPARAMETERS: Mapping[str, str] = {
    "batchsize": "spec.training.batchSize",
    "learningrate": "spec.training.optimizer.learningRate",
    "lr": "spec.training.optimizer.learningRate",
    "epochs": "spec.training.localEpochs",
    "epoch": "spec.training.localEpochs",
    "localepochs": "spec.training.localEpochs",
    "momentum": "spec.training.optimizer.momentum",
    "weightdecay": "spec.training.optimizer.weightDecay",
    "optimizer": "spec.training.optimizer.name",
    "seed": "spec.seed",
}
"""By the name that Ianvs and Sedna examples use, case and punctuation aside."""

SYNONYMS: Mapping[str, str] = {"memorysize": "exemplarsperworker"}
"""Parameters of algorithms that examples call otherwise."""


def plain(name: str) -> str:
    """Return a name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def words(name: str) -> set[str]:
    """Return the words of a name, without case: `TARGET-Client` has target and client."""
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def metric_of(name: str) -> Counterpart | None:
    """Return the measure for the metric of Ianvs called `name`, case and punctuation aside; None: none."""
    return next((known for metric, known in METRICS.items() if plain(metric) == plain(name)), None)


def no_metric(name: str) -> str:
    """Return why engram has no measure for the metric called `name`."""
    known = {plain(metric): why for metric, why in NO_METRICS.items()}
    return known.get(plain(name), "not a measure of engram (docs/metrics.md)")


def dataset_of(names: Iterable[str]) -> str:
    """Return the built-in data set that the first fitting of `names` says; empty: none does."""
    known = {plain(name): name for name in DATASETS if name not in ("npz", "image-folder")}
    for name in names:
        found = known.get(plain(name))
        if found is not None:
            return found
    return ""


def dataset_in(url: str) -> str:
    """Return the built-in data set that a step of a path or URL names, or a word of one; empty: none."""
    steps = url.split("/")
    return dataset_of(word for step in steps for word in (step, *step.replace(".", "_").split("_")))


def algorithm_of(names: Iterable[str]) -> Counterpart | None:
    """Return engram's nearest algorithm to the first of `names` that is known, None when none is."""
    for name in names:
        whole, parts = plain(name), words(name)
        for row in ALGORITHM_ROWS:
            if any(plain(word) in (parts if word in WHOLE_WORDS else whole) for word in row.words):
                nearest = next(candidate for candidate in row.nearest if candidate in ALGORITHMS)
                return Counterpart(nearest, f"nearest to {name!r}: {row.remark}")
    return None


def aggregation_of(name: str) -> Counterpart | None:
    """Return the built-in aggregation rule called `name`, None when there is none."""
    known = {plain(rule): rule for rule in AGGREGATIONS}
    found = known.get(plain(name))
    if found is None:
        return None
    return Counterpart(found, "engram's rule of this name, weighted by samples; aggregation.py is not run")


def model_of(url: str) -> str:
    """Return the network that the file name of `url` speaks of; empty: none."""
    name = plain(url.rsplit("/", 1)[-1].partition(".")[0])
    return next((model for word, model in MODEL_WORDS if word in name and model in MODELS), "")


def training_field(name: str) -> str:
    """Return the field of the job that a hyperparameter of training called `name` belongs to; empty: none."""
    return HYPERPARAMETERS.get(plain(name), "")


def parameter_field(name: str, prefix: str, parameters: type[Spec]) -> str:
    """Return the field below `prefix` for the one of `parameters` that `name` means; empty: none."""
    sought = SYNONYMS.get(plain(name), plain(name))
    known = [info.alias or key for key, info in parameters.model_fields.items()]
    return next((f"{prefix}.{alias}" for alias in known if plain(alias) == sought), "")


def job_name(written: str) -> str:
    """Return `written` as the name of a job: lower case, hyphens, from a letter, at most 40 characters."""
    name = re.sub(r"[^a-z0-9]+", "-", written.lower()).strip("-")
    name = name if name[:1].isalpha() else f"job-{name}".strip("-")
    return name[:40].rstrip("-")
