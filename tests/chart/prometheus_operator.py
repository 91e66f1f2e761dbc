"""The CRDs of the Prometheus Operator, from the Go module that publishes them: no download page is needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.fixtures import unavailable

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.80.1"
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")


def prometheus_operator_crds() -> dict[str, Path]:
    """Return the CRDs' files by the name of the CRD; skips the test where the module cannot be had."""
    try:
        go = binaries.go_command()
    except binaries.Unavailable as reason:
        unavailable(str(reason))
    command = [str(go), "mod", "download", "-json", MODULE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        unavailable(f"{MODULE} cannot be fetched: {done.stdout.strip() or done.stderr.strip()}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    group = "monitoring.coreos.com"
    return {f"{kind}.{group}": folder / f"{group}_{kind}.yaml" for kind in KINDS}
