"""Other systems: where they are installed, and what they took where they are not.

They live in an environment of their own, as their dependencies are none of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.federation_load.rows import Row

FLOWER = "flwr==1.42.0"
NEEDED = (
    "numpy",
    "grpcio",
    "grpcio-health-checking",
    "protobuf",
    "cryptography",
    "pycryptodome",
    "iterators",
)
"""What Flower's server and client import, for indexes that lack others of its dependencies."""

LEGACY, SUPERLINK, SEDNA = ("Flower legacy gRPC", "Flower SuperLink", "Sedna")

KNOWN: dict[str, dict[tuple[int, int], float]] = {
    LEGACY: {
        (62_000, 2): 0.009,
        (62_000, 5): 0.018,
        (62_000, 10): 0.030,
        (1_000_000, 2): 0.045,
        (1_000_000, 5): 0.16,
        (1_000_000, 10): 0.22,
        (11_200_000, 2): 1.3,
        (11_200_000, 5): 3.5,
        (11_200_000, 10): 9.5,
    },
    SUPERLINK: {
        (62_000, 2): 6.4,
        (62_000, 5): 10.4,
        (62_000, 10): 19.5,
        (1_000_000, 2): 6.2,
        (1_000_000, 10): 15.0,
        (11_200_000, 2): 9.6,
        (11_200_000, 10): 43.0,
    },
    "NVFlare 2.9 simulator": {(1_000_000, 2): 2.5, (11_200_000, 2): 3.0},
    SEDNA: {
        (62_000, 2): 0.35,
        (62_000, 5): 1.1,
        (62_000, 10): 2.3,
        (1_000_000, 2): 6.8,
        (1_000_000, 5): 12.0,
        (1_000_000, 10): 35.0,
        (11_200_000, 2): 154.0,
    },
}
"""Median seconds a round by (parameters, workers), measured once on two cores over loopback (Flower 1.42)."""


def known(system: str, parameters: int, workers: int, why: str = "") -> Row | None:
    """Return the line of a system that is not measured in this run; None where there is no figure."""
    seconds = KNOWN[system].get((parameters, workers))
    if seconds is None:
        return None
    note = f"{why or 'not installed'}: a figure of another run"
    return Row(system, parameters, workers, "none", seconds, note=note)


def tried(
    system: str,
    measure: Callable[[Path, int, int, int, float], Row],
    python: Path,
    parameters: int,
    workers: int,
    rounds: int,
    limit: float,
) -> Row:
    """Measure a system of others; one that does not come to its end is a line that says so."""
    try:
        return measure(python, parameters, workers, rounds, limit)
    except (RuntimeError, OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        row = known(system, parameters, workers, f"failed here ({error})")
        return row or Row(system, parameters, workers, "none", None, note=f"failed here ({error})")


def interpreter(environment: Path) -> Path | None:
    """Return the Python that has Flower in `environment`; None when it has not."""
    python = environment / "bin/python"
    if not python.exists():
        return None
    asked = subprocess.run(
        [python, "-c", "import flwr.server, flwr.client"], capture_output=True, check=False
    )
    return python if asked.returncode == 0 else None


def sedna() -> Path | None:
    """Return the Python that has KubeEdge's Sedna: SEDNA_PYTHON, or this one; None when neither has it."""
    python = os.environ.get("SEDNA_PYTHON", sys.executable)
    words = [python, "-W", "ignore", "-c", "import sedna.service.server, sedna.core.federated_learning"]
    try:
        asked = subprocess.run(words, capture_output=True, check=False)
    except OSError:
        return None
    return Path(python) if asked.returncode == 0 else None


def install(environment: Path) -> Path | None:
    """Make `environment` with Flower in it; return its Python, or None when Flower cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet"]
    pip.append("--disable-pip-version-check")
    if subprocess.run([*pip, FLOWER], check=False).returncode:
        subprocess.run([*pip, "--no-deps", FLOWER], check=False)
        subprocess.run([*pip, *NEEDED], check=False)
    return interpreter(environment)
