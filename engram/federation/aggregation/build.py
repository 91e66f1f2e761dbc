"""From a name in the job file to a rule: the built-in ones, or a user's own class by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from engram.errors import ConfigurationError
from engram.federation.aggregation.base import Aggregation
from engram.federation.aggregation.fedadam import FedAdam
from engram.federation.aggregation.fedavg import FedAvg
from engram.federation.aggregation.fedavgm import FedAvgM
from engram.federation.aggregation.krum import Krum
from engram.federation.aggregation.listed import ListedAggregation, is_listed
from engram.federation.aggregation.median import Median
from engram.federation.aggregation.trimmed_mean import TrimmedMean
from engram.spec.algorithms import NoParameters
from engram.spec.base import Spec
from engram.spec.dotted import load_dotted, shortened_traceback
from engram.spec.parameters import FedAdamParameters, FedAvgMParameters, KrumParameters, TrimmedMeanParameters

FIELD = "spec.aggregation.name"
Parameters = TypeVar("Parameters", bound=Spec)


def build(name: str, parameters: Spec | Mapping[str, Any]) -> Aggregation:
    """Return the rule `name` with its parsed `parameters` (a mapping for a dotted path).

    Raises ConfigurationError when the name is unknown, or when the user's own class does not import or fails.
    """
    match name:
        case "fedavg":
            return FedAvg(_typed(parameters, NoParameters))
        case "fedavgm":
            return FedAvgM(_typed(parameters, FedAvgMParameters))
        case "fedadam":
            return FedAdam(_typed(parameters, FedAdamParameters))
        case "median":
            return Median(_typed(parameters, NoParameters))
        case "trimmed-mean":
            return TrimmedMean(_typed(parameters, TrimmedMeanParameters))
        case "krum":
            return Krum(_typed(parameters, KrumParameters))
    if ":" not in name:
        raise ConfigurationError(
            f"unknown aggregation {name!r}",
            field=FIELD,
            remedy="write fedavg, fedavgm, fedadam, median, trimmed-mean, krum or package.module:Class",
        )
    return _own(name, parameters if isinstance(parameters, Mapping) else parameters.dump())


def _typed(parameters: Spec | Mapping[str, Any], kind: type[Parameters]) -> Parameters:
    if isinstance(parameters, kind):
        return parameters
    return kind.model_validate(parameters if isinstance(parameters, Mapping) else parameters.dump())


def _own(path: str, parameters: Mapping[str, Any]) -> Aggregation:
    kind = load_dotted(path, FIELD)
    try:
        if is_listed(kind):
            return ListedAggregation(path, kind(**parameters))
        rule = kind(dict(parameters))
    except Exception as error:  # the class is the user's own code: anything may be raised
        raise ConfigurationError(
            f"{path} cannot be made from its parameters: {shortened_traceback(error)}",
            field="spec.aggregation.parameters",
        ) from error
    if not isinstance(rule, Aggregation):
        raise ConfigurationError(
            f"{path} is no subclass of engram.federation.aggregation.Aggregation and has no "
            "aggregate(clients)",
            field=FIELD,
        )
    return rule
