"""THE CONTRACT: the job file's types, and every name that two sides share. A leaf: it imports nothing of
engram but errors.
"""

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
