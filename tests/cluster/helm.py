"""Helm as a user types it; manifests are made without a cluster, for the oldest supported Kubernetes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engram_operator.preflight import OLDEST_KUBERNETES
from tests.cluster import binaries
from tests.cluster.api import Object

OFFLINE = "--kube-version=" + ".".join(map(str, OLDEST_KUBERNETES))
"""Helm, which asks no cluster then, would assume one that is older."""
Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm ended with another code than 0; the text is what it wrote to stderr."""


@dataclass(frozen=True)
class Helm:
    """Helm for one chart, and for one namespace of the cluster that `kubeconfig` names."""

    chart: Path
    kubeconfig: Path | None = None
    namespace: str = "default"

    def run(self, *arguments: str, values: Values | None = None, seconds: float = 60) -> str:
        """Return what `helm ARGUMENTS` prints. Raises HelmError, or binaries.Unavailable."""
        place = [f"--namespace={self.namespace}"]
        if self.kubeconfig is not None:
            place.append(f"--kubeconfig={self.kubeconfig}")
        done = subprocess.run(
            [binaries.find("helm"), *arguments, *place, *(["--values=-"] if values else [])],
            input=json.dumps(values) if values else "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def text(self, release: str, *options: str, values: Values | None = None) -> str:
        """Return the manifests of a release, unread."""
        return self.run("template", release, str(self.chart), OFFLINE, *options, values=values)

    def template(self, release: str = "engram", *options: str, values: Values | None = None) -> list[Object]:
        """Return the objects of a release."""
        return [item for item in yaml.safe_load_all(self.text(release, *options, values=values)) if item]

    def install(self, release: str, *options: str, values: Values | None = None) -> str:
        """`helm install`, or upgrade where there is such a release; return what Helm says."""
        return self.run("upgrade", "--install", release, str(self.chart), *options, values=values)

    def uninstall(self, release: str) -> None:
        """`helm uninstall`; no error where there is no such release."""
        self.run("uninstall", release, "--ignore-not-found")
