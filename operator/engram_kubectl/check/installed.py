"""Whether the cluster has engram: Kubernetes new enough, the CRD of this version, an operator that is up.

The operator's settings are read from its Deployment: they decide the default image and more of the pods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engram import __version__
from engram.errors import ConfigurationError
from engram.spec.crd import build_crd
from engram.spec.names import API_VERSION, CRD_NAME, PLURAL
from engram_kubectl.check.findings import Found, fail, ok, unreadable, warn
from engram_kubectl.connection import Cluster
from engram_kubectl.errors import INSTALL
from engram_operator.errors import ApiError
from engram_operator.model import Object
from engram_operator.preflight import MOST_NAMED, OLDEST_KUBERNETES, missing_fields, served_schema
from engram_operator.settings import PREFIX, Settings, read_settings

_CHART = "helm install engram charts/engram --namespace engram-system --create-namespace"
_NUMBERS = re.compile(r"v?(\d+)\.(\d+)")


def check_kubernetes(version: str) -> Found:
    """Judge the API server's version."""
    found = _NUMBERS.match(version)
    oldest = ".".join(map(str, OLDEST_KUBERNETES))
    if found is None:
        return warn("kubernetes", f"its version is not known: {version!r}", f"{oldest} or later is needed")
    if (int(found[1]), int(found[2])) < OLDEST_KUBERNETES:
        return fail("kubernetes", version, f"{oldest} or later is needed")
    return ok("kubernetes", version)


async def check_crd(cluster: Cluster) -> Found:
    """Judge the CRD that the cluster serves against that of this version."""
    try:
        group = await cluster.api.request("GET", f"/apis/{API_VERSION}")
        served = any(item.get("name") == PLURAL for item in group.get("resources") or ())
    except ApiError as error:
        if error.status != 404:
            raise
        served = False
    if not served:
        return fail("crd", f"{CRD_NAME} is not installed", INSTALL)
    try:
        schema = served_schema(await cluster.api.request("GET", f"/openapi/v3/apis/{API_VERSION}"))
    except ApiError:
        schema = None
    return crd_found(schema)


def crd_found(schema: Mapping[str, Any] | None) -> Found:
    """Judge a schema that is served; None: it cannot be read."""
    if schema is None:
        return warn("crd", f"{CRD_NAME} is installed, its version could not be found out")
    wanted = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    missing = list(missing_fields(wanted, schema))
    if missing:
        shown = ", ".join(missing[:MOST_NAMED]) + (" ..." if len(missing) > MOST_NAMED else "")
        return fail("crd", f"of another version than {__version__}: it does not know {shown}", INSTALL)
    return ok("crd", f"{CRD_NAME} knows every field of version {__version__}")


def check_operator(operators: Sequence[Object] | None, namespace: str) -> list[Found]:
    """Judge the operators: one is to be up, of this version, and to watch `namespace`."""
    if operators is None:
        return [unreadable("operator", "Deployments of all namespaces")]
    if not operators:
        return [warn("operator", "no Deployment of engram's operator is in this cluster", _CHART)]
    watching = [item for item in operators if watches(item, namespace)]
    if not watching:
        places = ", ".join(item["metadata"]["namespace"] for item in operators)
        return [
            fail(
                "operator",
                f"none watches namespace {namespace} (in {places})",
                "add it to watchNamespaces of the chart",
            )
        ]
    return [_operator(item) for item in watching]


def _operator(item: Object) -> Found:
    meta, status = item["metadata"], item.get("status") or {}
    version = str((meta.get("labels") or {}).get("app.kubernetes.io/version") or "")
    name = f"{meta['namespace']}/{meta['name']} {version}".rstrip()
    if not status.get("readyReplicas"):
        return fail(
            "operator",
            f"{name} is not ready",
            f"kubectl -n {meta['namespace']} describe deployment {meta['name']}",
        )
    if version and version != __version__:
        return warn(
            "operator",
            f"{name} is up, this is {__version__}",
            "use the command line of the operator's version",
        )
    return ok("operator", f"{name} is up")


def watches(operator: Object, namespace: str) -> bool:
    """Return whether an operator looks at the jobs of a namespace."""
    settings = settings_of(operator)
    return settings is None or not settings.namespaces or namespace in settings.namespaces


def settings_of(operator: Object) -> Settings | None:
    """Return the settings that a Deployment gives its operator; None: they cannot be read from it."""
    containers = operator["spec"]["template"]["spec"].get("containers") or ()
    given = next((item for item in containers if item.get("name") == "operator"), None)
    if given is None:
        return None
    environ = {
        str(item["name"]): str(item.get("value") or "")
        for item in given.get("env") or ()
        if str(item.get("name", "")).startswith(PREFIX) and "valueFrom" not in item
    }
    try:
        return read_settings([str(word) for word in given.get("args") or ()], environ)
    except (ConfigurationError, SystemExit):  # of another version, with settings that this one has not
        return None
