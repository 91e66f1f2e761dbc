"""Kubernetes objects of a job: pure builders from (job, context) to plain data.

The same job and context give byte-identical objects, whatever the operator has seen or done before. Nothing
here reads the cluster; `credentials.generate` is the only function that draws random numbers.
"""

from engram_operator.manifests.build import Children, build_children
from engram_operator.manifests.config import as_started, spec_digest, started_job
from engram_operator.manifests.context import Context
from engram_operator.manifests.endpoints import EndpointUnknown, endpoints_of
from engram_operator.manifests.jobs import job_patch
from engram_operator.manifests.volumes import checkpoint_is_durable, forgetful_groups, with_checkpoint

__all__ = [
    "Children",
    "Context",
    "EndpointUnknown",
    "as_started",
    "build_children",
    "checkpoint_is_durable",
    "endpoints_of",
    "forgetful_groups",
    "job_patch",
    "spec_digest",
    "started_job",
    "with_checkpoint",
]
