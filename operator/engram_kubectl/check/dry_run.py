"""The strongest check: the API server judges the job, its objects and a pod of each kind, and keeps nothing.

So schema, CEL rules, quotas, LimitRanges, Pod Security, admission policies and webhooks speak for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engram.spec.names import KIND
from engram_kubectl.check.findings import Found, fail, ok, warn
from engram_kubectl.check.pods import PodSet, pod_of
from engram_kubectl.connection import AGENT, Cluster
from engram_kubectl.errors import not_installed
from engram_operator.api import APPLY_PATCH, path_of
from engram_operator.errors import ApiError
from engram_operator.manifests import Children
from engram_operator.model import Object
from engram_operator.status.finding import ANEW
from engram_operator.status.refusals import explain_refusal

QUERY = {"dryRun": "All", "fieldManager": AGENT}
_NO_RIGHT = re.compile(r'User "[^"]*" cannot [a-z]+ resource "([a-z/]+)"')
_POD_SUFFIX = "-engram-check"


async def check_job(cluster: Cluster, document: Mapping[str, Any], namespace: str) -> Found:
    """Have the API server judge the job file as `kubectl apply` would send it."""
    name = str(document["metadata"]["name"])
    body = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
    body.pop("status", None)
    query = {**QUERY, "force": "true", "fieldValidation": "Strict"}
    try:
        await cluster.api.request(
            "PATCH", path_of(KIND, namespace, name), query=query, body=body, content_type=APPLY_PATCH
        )
    except ApiError as error:
        if not_installed(error):
            return warn("dry run: job", "not tried: the CRD is not installed")
        return _refused("job", error)
    return ok("dry run: job", "the API server takes it")


async def check_objects(cluster: Cluster, children: Children) -> list[Found]:
    """Have it judge each object that the operator would make."""
    refused = []
    for item in children.all:
        problem = await _try(cluster, item, f"{item['kind']} {item['metadata']['name']}")
        if problem is not None:
            refused.append(problem)
    return _merged(refused) or [ok("dry run: objects", f"the API server takes all {len(children.all)}")]


async def check_pods(cluster: Cluster, sets: Sequence[PodSet], namespace: str, job: str) -> list[Found]:
    """Have it judge one pod of each kind: quota and Pod Security speak of pods only, never of their Jobs."""
    refused = []
    for wanted in sets:
        pod = pod_of(wanted, namespace, f"{job}-{wanted.name}{_POD_SUFFIX}")
        problem = await _try(cluster, pod, f"pod of {wanted.name}")
        if problem is not None:
            refused.append(problem)
    return _merged(refused) or [
        ok("dry run: pods", f"admission takes a pod of {', '.join(s.name for s in sets)}")
    ]


async def _try(cluster: Cluster, item: Object, what: str) -> Found | None:
    """Return why the API server would not make an object; None: it would."""
    path = path_of(item["kind"], item["metadata"]["namespace"])
    try:
        await cluster.api.request("POST", path, query=QUERY, body=item)
    except ApiError as error:
        return _refused(what, error)
    return None


def _refused(what: str, error: ApiError) -> Found:
    """Return a refusal as a finding: rights that we lack are none of the job's faults."""
    subject = f"dry run: {what}"
    lacking = _NO_RIGHT.search(error.message)
    if error.status == 403 and lacking:
        return warn(subject, f"not checked: these rights do not make {lacking[1]}")
    if error.reason == "AlreadyExists":
        return fail(
            subject, "an object of that name is there already", "rename the job, or remove the object"
        )
    said = explain_refusal(error.message, what).message.replace(f"{ANEW} ", "apply the job ")
    found, _, remedy = said.rpartition(": ")
    return fail(subject, found or said, remedy if found else "")


def _merged(problems: Sequence[Found]) -> list[Found]:
    """Return the findings, those that only lack a right once for all of a resource."""
    found: dict[str, Found] = {}
    for problem in problems:
        found.setdefault(problem.said if problem.said.startswith("not checked") else problem.subject, problem)
    return list(found.values())
