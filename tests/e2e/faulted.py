"""Fixtures of runs that faults happen to, and where their figures go; conftest imports them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engram.spec.names import Reason
from tests.cluster import faults
from tests.cluster.api import Api, Object
from tests.cluster.node_level import NodeLevel
from tests.e2e.broken import NAME, SPEC
from tests.e2e.jobs import Jobs, build_job, local_volume
from tests.e2e.recovery import Report
from tests.e2e.training import CLOUD, Told, Training

RESULTS_VARIABLE = "ENGRAM_FAULTS_JSON"
"""File for the recovery times."""
CLAIM = "checkpoint"
"""Name of the claim in the test's namespace."""
EARLY = 20
"""The round of 300 in which faults happen."""


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """Collect what was measured; write it where the benchmark wants it."""
    found = Report()
    yield found
    path = os.environ.get(RESULTS_VARIABLE)
    if path:
        found.write(Path(path))


@pytest.fixture
def start(jobs: Jobs, level: NodeLevel) -> Iterator[Callable[..., Training]]:
    """Start the job, watched, with this spec."""
    running: list[Training] = []

    def starting(spec: Object = SPEC) -> Training:
        running.append(Training(jobs, level, build_job(NAME, spec)))
        return running[-1]

    yield starting
    for training in running:
        training.close()


def through_a_power_cut(training: Training, level: NodeLevel) -> tuple[float, Told, float]:
    """Cut the power of edge1 and give it back; return when it was cut, what was told, and when it was back.

    Nobody is replaced meanwhile, and then all is well again.
    """
    training.reach(EARLY)
    pods, since = training.uids(), time.monotonic()
    with faults.power_cut(level, "edge1"):
        told = training.told(Reason.NODE_OFFLINE, since)
        assert training.uids() == pods, "nobody is replaced while its node may come back"
    mended = time.monotonic()
    training.well(mended)
    return since, told, mended


@pytest.fixture
def claim(api: Api, jobs: Jobs) -> Iterator[Callable[[Object], Object]]:
    """Make a volume and the claim that it is for; return the volume source for the job."""
    made: list[str] = []

    def making(volume: Object) -> Object:
        item = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        jobs.apply(volume, item)
        made.append(volume["metadata"]["name"])
        return {"persistentVolumeClaim": {"claimName": CLAIM}}

    yield making
    for name in made:
        api.delete("PersistentVolume", name)


@pytest.fixture
def checkpoint(claim: Callable[[Object], Object], jobs: Jobs, level: NodeLevel) -> Object:
    """A claim for the checkpoint, bound to a folder of the cloud's node: a volume source for the job."""
    name = f"checkpoint-{jobs.namespace}"
    return claim(local_volume(level, CLOUD, name, (jobs.namespace, CLAIM))[0])
