"""What is checked before the operator starts, each failure one sentence with the remedy.

An older CRD is refused and not tolerated, at the start and later: the API server drops what it does not know,
from job files and from status, and nobody would be told. Its schema is read from the API server's own OpenAPI
document, which everyone who may log in may read, so that a namespaced operator needs no right to read CRDs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from engram.spec.crd import build_crd
from engram.spec.names import API_VERSION, CRD_NAME, GROUP, KIND, PLURAL
from engram_operator.api import Api
from engram_operator.errors import ApiError, StartError
from engram_operator.settings import Settings

logger = logging.getLogger(__name__)

OLDEST_KUBERNETES = (1, 31)
INSTALL = "engram crd | kubectl apply --server-side --force-conflicts -f -"
"""The command that installs and updates the CRD, whoever installed the one before."""
MOST_NAMED = 5
CRD_SECONDS, CRD_AGAIN_SECONDS = 60.0, 5.0
"""How often the CRD is looked at while we run, and how soon again when something seems wrong with it."""


class Right(NamedTuple):
    """A right that the operator needs in every namespace that it watches."""

    group: str
    resource: str
    """Such as jobs, or services/proxy."""
    verbs: tuple[str, ...]


RIGHTS: tuple[Right, ...] = (
    Right(GROUP, PLURAL, ("get", "list", "watch", "delete")),
    Right(GROUP, f"{PLURAL}/status", ("patch",)),
    Right("batch", "jobs", ("get", "list", "watch", "create", "patch", "delete")),
    Right("", "pods", ("list", "watch")),
    Right("", "pods/log", ("get",)),
    Right("", "services", ("get", "create", "patch")),
    Right("", "configmaps", ("get", "create", "patch")),
    Right("", "secrets", ("get", "create", "patch", "delete")),
    Right("", "persistentvolumeclaims", ("get", "create", "patch")),
    Right("", "events", ("list", "create")),
)
"""The least that works; deploy/ and the chart grant it. Nodes (get, list) are asked for and can be missed."""
RIGHTS_POLICY = (Right("networking.k8s.io", "networkpolicies", ("get", "create", "patch")),)
"""In addition where jobs get a NetworkPolicy."""
RIGHTS_OUTSIDE = (Right("", "services/proxy", ("get",)),)
"""In addition when the operator runs outside the cluster."""


async def check(api: Api, host: str, settings: Settings) -> None:
    """Check the cluster, its CRD and our rights.

    Raises:
        StartError: the operator cannot work here.
    """
    await check_server(api, host)
    await check_crd(api)
    await check_rights(api, settings)


async def check_server(api: Api, host: str) -> None:
    """Raise StartError unless the API server answers, knows us and is new enough."""
    try:
        version = await api.request("GET", "/version")
    except ApiError as error:
        if error.status == 401:
            raise StartError(
                f"the cluster at {host} does not accept these credentials: log in again, or name another "
                "kubeconfig with --kubeconfig"
            ) from error
        raise StartError(
            f"no cluster can be reached at {host}: {error}: start it, or name another kubeconfig with "
            "--kubeconfig"
        ) from error
    digits = ["".join(filter(str.isdigit, str(version.get(part) or "0"))) for part in ("major", "minor")]
    found = (int(digits[0] or 0), int(digits[1] or 0))
    if found < OLDEST_KUBERNETES:
        raise StartError(
            f"the cluster at {host} runs Kubernetes {found[0]}.{found[1]}: "
            f"{OLDEST_KUBERNETES[0]}.{OLDEST_KUBERNETES[1]} or later is needed"
        )


async def check_crd(api: Api) -> None:
    """Raise StartError unless the CRD is installed and knows every field that we know."""
    try:
        fault = await crd_fault(api)
    except ApiError as error:
        raise StartError(f"the API group {API_VERSION} cannot be read: {error}") from error
    if fault:
        raise StartError(fault)


async def until_outdated(api: Api, every: float = CRD_SECONDS) -> str:
    """Return when the CRD is no longer one that knows what we know: the sentence that says so.

    Somebody may put an older one in its place while we run. An API server that does not answer says nothing
    of the CRD, and one that has just started does not serve it yet: only what is seen twice counts.
    """
    fault = ""
    while True:
        await asyncio.sleep(min(CRD_AGAIN_SECONDS, every) if fault else every)
        try:
            found = await crd_fault(api)
        except ApiError as error:
            logger.debug("the CRD was not looked at: %s", error)
            continue
        if found and fault:
            return found
        fault = found


async def crd_fault(api: Api) -> str:
    """Return what is wrong with the CRD, as a sentence; empty: nothing.

    Raises ApiError when the API server does not tell.
    """
    try:
        found = await api.request("GET", f"/apis/{API_VERSION}")
    except ApiError as error:
        if error.status != 404:
            raise
        found = {}
    if all(item.get("name") != PLURAL for item in found.get("resources") or ()):
        return f"the CRD {CRD_NAME} is not installed: run `{INSTALL}`"
    try:
        document = await api.request("GET", f"/openapi/v3/apis/{API_VERSION}")
    except ApiError as error:
        logger.warning("the version of the CRD was not checked: %s", error)
        return ""
    served = served_schema(document)
    if served is None:
        logger.warning("the version of the CRD was not checked: no schema of %s is served", KIND)
        return ""
    missing = list(missing_fields(_own_schema(), served))
    if not missing:
        return ""
    shown = ", ".join(missing[:MOST_NAMED]) + (" ..." if len(missing) > MOST_NAMED else "")
    return f"the CRD {CRD_NAME} is of another version and does not know {shown}: run `{INSTALL}`"


@cache
def _own_schema() -> Mapping[str, Any]:
    """Return the schema of the types in engram.spec."""
    found: Mapping[str, Any] = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def served_schema(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of our kind in an OpenAPI v3 document."""
    schemas = (document.get("components") or {}).get("schemas") or {}
    for schema in schemas.values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any((item.get("group"), item.get("kind")) == (GROUP, KIND) for item in kinds):
            found: Mapping[str, Any] = schema
            return found
    return None


def missing_fields(wanted: Mapping[str, Any], served: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the fields of `wanted` that `served` does not know, the outermost ones only."""
    known = served.get("properties") or {}
    for name, schema in (wanted.get("properties") or {}).items():
        inner = f"{path}.{name}" if path else name
        if name not in known:
            yield inner
        elif inner != "metadata":
            yield from missing_fields(schema, known[name], inner)
    for part, mark in (("items", "[]"), ("additionalProperties", ".*")):
        schema, other = wanted.get(part), served.get(part)
        if isinstance(schema, Mapping) and isinstance(other, Mapping):
            yield from missing_fields(schema, other, path + mark)


async def check_rights(api: Api, settings: Settings) -> None:
    """Raise StartError naming the rights that are missing."""
    rights = (
        *RIGHTS,
        *(RIGHTS_POLICY if settings.network_policy else ()),
        *(() if settings.in_cluster else RIGHTS_OUTSIDE),
    )
    asked = [
        (namespace, right, verb)
        for namespace in settings.namespaces or ("",)
        for right in rights
        for verb in right.verbs
    ]
    try:
        answers = await asyncio.gather(*(_may(api, *question) for question in asked))
    except ApiError as error:
        logger.warning("rights were not checked: %s", error)
        return
    missing = [
        f"{verb} {right.resource}{f'.{right.group}' if right.group else ''}"
        f" in {f'namespace {namespace}' if namespace else 'all namespaces'}"
        for (namespace, right, verb), allowed in zip(asked, answers, strict=True)
        if not allowed
    ]
    if missing:
        raise StartError(
            f"the operator's account may not {', '.join(missing)}: bind it to the role engram-operator of "
            "deploy/, or name the namespaces it may use with --namespace"
        )


async def _may(api: Api, namespace: str, right: Right, verb: str) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
    }
    answer = await api.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool((answer.get("status") or {}).get("allowed"))
