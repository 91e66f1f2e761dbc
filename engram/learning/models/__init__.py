"""Models: small classic networks, and a user's own by dotted path.

A model is a feature extractor: it maps images [b, channels, height, width] to features [b, d]. engram puts
the growing head upon it (`models.network`), so an extractor knows nothing of classes.

A model of your own is a function named by dotted path in `spec.model.name`; it is called as
`function(shape, parameters)` with the images' (channels, height, width) and `spec.model.parameters` as a
plain dict, and returns such an extractor as a `torch.nn.Module`. d is found by passing one image of zeros.
Its initial values are seeded by the job: draw them from torch's global generator, as `torch.nn` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engram.errors import ConfigurationError
from engram.learning.models.cnn import cnn
from engram.learning.models.lenet5 import lenet5
from engram.learning.models.network import Network
from engram.learning.models.resnet import resnet18, resnet32
from engram.learning.seeds import global_generator
from engram.spec import FederatedIncrementalJob, model_parameters
from engram.spec.dotted import load_dotted
from engram.spec.parameters import CnnParameters, LeNet5Parameters, ResNet18Parameters, ResNet32Parameters

__all__ = ["Network", "build_network"]

CPU = torch.device("cpu")


def build_network(job: FederatedIncrementalJob, shape: tuple[int, int, int], rows: int) -> Network:
    """Return the job's network on the CPU with its seeded initial values and a head of `rows` rows.

    The same job and shape give the same values, whatever torch's global generator holds. Raises
    ConfigurationError when a user's own model is not what the module's docstring asks for.
    """
    with global_generator(CPU, job.spec.seed, "model"):
        features = _features(job, shape)
        size = _feature_size(features, shape, job.spec.model.name)
        return Network(features, size, rows)


def _features(job: FederatedIncrementalJob, shape: tuple[int, int, int]) -> nn.Module:
    parameters = model_parameters(job)
    match parameters:
        case LeNet5Parameters():
            return lenet5(shape, parameters)
        case CnnParameters():
            return cnn(shape, parameters)
        case ResNet18Parameters():
            return resnet18(shape, parameters)
        case ResNet32Parameters():
            return resnet32(shape, parameters)
        case _:
            return _own(job, shape)


def _own(job: FederatedIncrementalJob, shape: tuple[int, int, int]) -> nn.Module:
    name = job.spec.model.name
    function = load_dotted(name, "spec.model.name")
    try:
        features: Any = function(shape, dict(job.spec.model.parameters))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigurationError(
            f"{name}(shape, parameters) failed: {type(error).__name__}: {error}",
            field="spec.model",
            remedy="it is called with the images' (channels, height, width) and spec.model.parameters",
        ) from error
    if not isinstance(features, nn.Module):
        raise ConfigurationError(
            f"{name} returned {type(features).__name__}, not a torch.nn.Module", field="spec.model.name"
        )
    return features


def _feature_size(features: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """Return d of the features [b, d] that one image of zeros gives."""
    training = features.training
    features.eval()
    try:
        with torch.no_grad():
            found: Any = features(torch.zeros(1, *shape))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{name} does not take images of shape {shape}: {error}", field="spec.model"
        ) from error
    features.train(training)
    if not isinstance(found, torch.Tensor) or found.dim() != 2:
        raise ConfigurationError(
            f"{name} must map images [b, channels, height, width] to features [b, d]",
            field="spec.model.name",
            remedy="end it with torch.nn.Flatten()",
        )
    return int(found.shape[1])
