"""Parameter types of everything built in, so that a bad parameter is refused before any process or pod
starts.

The operator and the local runner read these; `engram.learning` and `engram.federation` receive the parsed
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from engram.spec.algorithms import ALGORITHMS, NoParameters
from engram.spec.base import Spec
from engram.spec.problems import as_error
from engram.spec.wording import check_model

if TYPE_CHECKING:
    from engram.spec.job import FederatedIncrementalJob
    from engram.spec.training import Aggregation, Algorithm, Model

DATASETS = (
    "digits",
    "fashion-mnist",
    "mnist",
    "cifar10",
    "cifar100",
    "tiny-imagenet",
    "imagenet",
    "image-folder",
    "npz",
)
"""Names that `spec.dataset.name` may have beside a dotted path."""

NONE = "none"
"""Name of a data set or model that engram does not know: Sedna's workers bring both."""

CLASS_COUNTS: dict[str, int] = {
    "digits": 10,
    "fashion-mnist": 10,
    "mnist": 10,
    "cifar10": 10,
    "cifar100": 100,
    "tiny-imagenet": 200,
    "imagenet": 1000,
}
"""Classes of the data sets whose number is known without reading them."""

AUGMENTATIONS = ("none", "shift1", "crop-flip")


class FedAvgMParameters(Spec):
    """fedavgm: server momentum (Hsu et al. 2019)."""

    momentum: float = Field(0.9, ge=0, lt=1, description="Server momentum beta.")
    learning_rate: float = Field(1.0, gt=0, le=1000, description="Server learning rate.")


class FedAdamParameters(Spec):
    """fedadam: adaptive server optimiser (Reddi et al. 2021, algorithm 2)."""

    learning_rate: float = Field(0.01, gt=0, le=1000, description="Server learning rate eta.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the second moment.")
    adaptivity: float = Field(0.001, gt=0, le=1, description="Degree of adaptivity tau, added to the root.")


class TrimmedMeanParameters(Spec):
    """trimmed-mean: coordinate-wise mean without the extremes (Yin et al. 2018)."""

    trim: float = Field(
        0.1, ge=0, lt=0.5, description="Share of the updates cut off at each end of every coordinate."
    )


class KrumParameters(Spec):
    """krum: the update closest to its neighbours (Blanchard et al. 2017)."""

    byzantine: int = Field(
        1, ge=0, le=1000, description="Number f of workers that may lie; needs 2f + 3 updates."
    )
    keep: int = Field(1, ge=1, le=1000, description="Updates that are averaged (multi-Krum); 1 is Krum.")


AGGREGATIONS: dict[str, type[Spec]] = {
    "fedavg": NoParameters,
    "fedavgm": FedAvgMParameters,
    "fedadam": FedAdamParameters,
    "median": NoParameters,
    "trimmed-mean": TrimmedMeanParameters,
    "krum": KrumParameters,
}

Norm = Literal["none", "group", "batch"]


class LeNet5Parameters(Spec):
    """lenet5: LeCun et al. 1998 with ReLU and max pooling."""

    norm: Norm = Field("none", description="Normalisation after each convolution.")


class CnnParameters(Spec):
    """cnn: 3x3 convolutions, each halved by max pooling, one dense layer."""

    channels: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        default=[16, 32], min_length=1, max_length=8, description="Channels of the convolutions."
    )
    dense: int = Field(96, ge=1, le=65_536, description="Width of the dense layer (the feature size).")
    norm: Norm = Field("none", description="Normalisation after each convolution.")


class ResNet18Parameters(Spec):
    """resnet18: He et al. 2016 with a stem for small images (3x3, no pooling)."""

    width: int = Field(64, ge=4, le=1024, description="Channels of the first stage.")
    norm: Norm = Field("group", description="Normalisation; BatchNorm statistics break under non-iid data.")


class ResNet32Parameters(Spec):
    """resnet32: the CIFAR ResNet of He et al. 2016, section 4.2, with n = 5."""

    width: int = Field(16, ge=4, le=1024, description="Channels of the first stage.")
    norm: Norm = Field("group", description="Normalisation; BatchNorm statistics break under non-iid data.")


MODELS: dict[str, type[Spec]] = {
    "lenet5": LeNet5Parameters,
    "cnn": CnnParameters,
    "resnet18": ResNet18Parameters,
    "resnet32": ResNet32Parameters,
}


def algorithm_parameters(job: FederatedIncrementalJob) -> Spec | dict[str, Any]:
    """Return the parsed parameters of the job's algorithm; for a dotted path the plain mapping."""
    return _parsed(ALGORITHMS, job.spec.algorithm, "algorithm")


def aggregation_parameters(job: FederatedIncrementalJob) -> Spec | dict[str, Any]:
    """Return the parsed parameters of the job's aggregation; for a dotted path the plain mapping."""
    return _parsed(AGGREGATIONS, job.spec.aggregation, "aggregation")


def model_parameters(job: FederatedIncrementalJob) -> Spec | dict[str, Any]:
    """Return the parsed parameters of the job's model; for a dotted path the plain mapping."""
    return _parsed(MODELS, job.spec.model, "model")


def _parsed(
    known: Mapping[str, type[Spec]], part: Algorithm | Aggregation | Model, key: str
) -> Spec | dict[str, Any]:
    """Return the parameters of a part of a job; a bad job raises ConfigurationError."""
    model = known.get(part.name)
    if model is None:
        return dict(part.parameters)
    problems = check_model(part.parameters, model, ("spec", key, "parameters"))
    if problems:
        raise as_error(problems, "")
    return model.model_validate(part.parameters)
