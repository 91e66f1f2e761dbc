"""Volumes on the nodes' own disks that go with a test, and claims for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.api import Api, Object
from tests.cluster.node_level import NodeLevel
from tests.e2e.jobs import local_volume


class Volumes:
    """PersistentVolumes on the nodes' own disks."""

    def __init__(self, api: Api, level: NodeLevel) -> None:
        self._api, self._level = api, level
        self._made: dict[str, Path] = {}

    def __call__(self, name: str, namespace: str, node: str = "cloud") -> Path:
        """Make a volume on `node` for the claim `name` in `namespace`; return its folder on this machine."""
        item, folder = local_volume(self._level, node, f"{namespace}-{name}", (namespace, name))
        self._api.create(item)
        self._made[item["metadata"]["name"]] = folder
        return folder

    def remove(self) -> None:
        """Delete them and what lies in them."""
        for name, folder in self._made.items():
            self._api.delete("PersistentVolume", name)
            shutil.rmtree(folder)


def build_claim(name: str) -> Object:
    """Return a claim for one of them."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }
