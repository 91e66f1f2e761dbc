"""THE CONTRACT: the job file's types, and every name that two sides share. A leaf: it imports nothing of
engram but errors.

The types are loaded when first asked for (PEP 562): the command line and the operator need the names long
before they need pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.spec.job import FederatedIncrementalJob, JobSpec, WorkerIdentity
    from engram.spec.loader import load_job, load_jobs, load_yaml, parse_job
    from engram.spec.parameters import aggregation_parameters, algorithm_parameters, model_parameters

__all__ = [
    "FederatedIncrementalJob",
    "JobSpec",
    "WorkerIdentity",
    "aggregation_parameters",
    "algorithm_parameters",
    "load_job",
    "load_jobs",
    "load_yaml",
    "model_parameters",
    "parse_job",
]

_HOME = {
    **dict.fromkeys(("FederatedIncrementalJob", "JobSpec", "WorkerIdentity"), "job"),
    **dict.fromkeys(("load_job", "load_jobs", "load_yaml", "parse_job"), "loader"),
    **dict.fromkeys(("aggregation_parameters", "algorithm_parameters", "model_parameters"), "parameters"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
