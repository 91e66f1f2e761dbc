"""Pod Security Standards as a function: what `restricted` and `baseline` forbid in a pod's spec (v1.32).

Written from the standards' table, not from our builders, so that the builders can be judged by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: dict[str, Any]) -> list[str]:
    """Return every field of a pod's spec that a namespace enforcing `restricted` refuses."""
    return [*_pod(spec), *(problem for item in _containers(spec) for problem in _container(spec, item))]


def _containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        yield from spec.get(kind, ())


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", ()):
        for source in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {source}"
    security = spec.get("securityContext", {})
    if security.get("runAsUser") == 0:
        yield "runAsUser 0"
    if security.get("sysctls"):
        yield "sysctls"


def _container(spec: dict[str, Any], item: dict[str, Any]) -> Iterator[str]:
    name, pod, own = item["name"], spec.get("securityContext", {}), item.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield f"{name}: runAsNonRoot"
    if own.get("runAsUser") == 0:
        yield f"{name}: runAsUser 0"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {}))
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name}: capabilities.drop"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities.add"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if any(port.get("hostPort") for port in item.get("ports", ())):
        yield f"{name}: hostPort"
