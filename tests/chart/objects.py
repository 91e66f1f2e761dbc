"""Looking into what Helm made."""

from __future__ import annotations

from engram_operator.settings import Settings, read_settings
from tests.cluster.api import Object


def names(objects: list[Object]) -> dict[str, list[str]]:
    """Return the names of all objects, by kind."""
    found: dict[str, list[str]] = {}
    for item in objects:
        found.setdefault(item["kind"], []).append(item["metadata"]["name"])
    return found


def one(objects: list[Object], kind: str) -> Object:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pod_of(objects: list[Object]) -> Object:
    template: Object = one(objects, "Deployment")["spec"]["template"]
    return template


def container_of(objects: list[Object]) -> Object:
    (found,) = pod_of(objects)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def settings_of(objects: list[Object]) -> Settings:
    """The settings that the operator reads from its container."""
    container = container_of(objects)
    environment = {item["name"]: item["value"] for item in container["env"]}
    return read_settings(container.get("args", ()), environment)
