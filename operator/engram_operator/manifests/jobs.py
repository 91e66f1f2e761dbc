"""The batch Jobs of a run: one for the aggregator, an Indexed one for each worker group.

Kubernetes' own retries and failure policy restart what crashed; a Job is created once, its template never
changes, and afterwards only `suspend` and the number of workers are patched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from engram.spec.exit_codes import EXIT_MEANINGS, ExitCode, PolicyAction
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import MAIN_CONTAINER, Annotation, Role
from engram.spec.topology import WorkerGroup
from engram_operator.manifests.context import Context
from engram_operator.manifests.labels import metadata
from engram_operator.manifests.names import aggregation_name, group_name
from engram_operator.manifests.pods import aggregator_template, worker_template
from engram_operator.model import JobView, Object, Patch

VARYING = ("suspend", "parallelism", "completions")
"""Fields of a Job's spec that change after its creation; not part of the template hash."""


def aggregation_job(job: FederatedIncrementalJob, context: Context, digest: str) -> Object:
    """Return the Job of the aggregator, one completion; `digest` is the job's `spec_digest`."""
    spec = {
        "suspend": job.spec.suspend,
        "parallelism": 1,
        "completions": 1,
        "completionMode": "NonIndexed",
        "backoffLimit": job.spec.run_policy.backoff_limit,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_policy({row.code: row.aggregator for row in EXIT_MEANINGS})},
        "template": aggregator_template(job, context),
    }
    meta = metadata(job, aggregation_name(job.name), Role.AGGREGATOR)
    return batch_job(meta, spec, digest)


def group_job(job: FederatedIncrementalJob, group: WorkerGroup, context: Context, digest: str) -> Object:
    """Return the Indexed Job of `group`: index i is the worker `trainworker-<group>-<i>`, whatever its pod.

    A failed index does not end the others (no maxFailedIndexes): whether the run can go on without it is the
    aggregator's decision.
    """
    replicas = context.replicas_of(group)
    spec = {
        "suspend": job.spec.suspend,
        "parallelism": replicas,
        "completions": replicas,
        "completionMode": "Indexed",
        "backoffLimitPerIndex": job.spec.run_policy.backoff_limit,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_policy({row.code: row.worker for row in EXIT_MEANINGS})},
        "template": worker_template(job, group, context),
    }
    meta = metadata(job, group_name(job.name, group.name), Role.WORKER, group.name)
    return batch_job(meta, spec, digest)


def job_patch(view: JobView, *, suspend: bool, replicas: int) -> Patch | None:
    """Return what brings an existing Job to `suspend` and `replicas`; None if it is there or at its end.

    `replicas` is 1 for the aggregator. parallelism and completions change together, the only way in which an
    Indexed Job can be resized.
    """
    if view.deleting or view.succeeding or view.failing is not None:
        return None
    body: dict[str, Any] = {}
    if view.suspend != suspend:
        body["suspend"] = suspend
    if (view.parallelism, view.completions) != (replicas, replicas):
        body["parallelism"] = body["completions"] = replicas
    return Patch("Job", view.name, {"spec": body}) if body else None


def batch_job(meta: Object, spec: Object, digest: str = "") -> Object:
    """Return the Job with the hash of what of `spec` never changes, and the job's `spec_digest` if given."""
    meta["annotations"] = {
        Annotation.TEMPLATE_HASH: _hash({key: spec[key] for key in spec if key not in VARYING}),
        **({Annotation.SPEC_DIGEST: digest} if digest else {}),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def failure_policy(actions: Mapping[ExitCode, PolicyAction | None]) -> list[Object]:
    """Return the failure policy: disruptions first, then the exit codes in their order.

    Codes that are counted need no rule: that is what happens to a failure that no rule names.
    """
    disrupted = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    rules: list[Object] = [disrupted]
    for code, action in actions.items():
        if action is None or action == "Count":
            continue
        codes = {"containerName": MAIN_CONTAINER, "operator": "In", "values": [int(code)]}
        rules.append({"action": action, "onExitCodes": codes})
    return rules


def _hash(content: Object) -> str:
    """Return the SHA-256 of canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
