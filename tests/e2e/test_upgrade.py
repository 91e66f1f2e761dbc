"""A job that an operator of an older version has started, under the operator of today, on real nodes."""

from __future__ import annotations

import json

import pytest

from engram.spec.names import Phase, Role, SpecKey
from engram_operator.manifests.names import spec_name
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.cluster.waiting import NotYet, until
from tests.e2e.jobs import OPERATOR, SYSTEM, Jobs, build_job
from tests.e2e.test_jobs import small

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

NAME = "long"
NEW_SINCE_THEN = (("evaluation", "unseen"), ("training", "threads"), ("report", "prometheus"))
"""Fields that the older version is taken not to know."""


def test_a_worker_that_is_replaced_reads_what_its_version_wrote(
    control_plane: Cluster, jobs: Jobs, api: Api
) -> None:
    """Its image would end with a configuration error at a field that it does not know."""
    jobs.apply(build_job(NAME, small(rounds=2000)))
    jobs.in_round(NAME, 2)
    config = api.get("ConfigMap", spec_name(NAME), jobs.namespace)
    older = json.loads(config["data"][SpecKey.JOB])
    for section, field in NEW_SINCE_THEN:
        del older["spec"][section][field]
    config["data"][SpecKey.JOB] = json.dumps(older, indent=2) + "\n"
    jobs.kubectl.run("replace", "--filename=-", stdin=json.dumps(config))
    before = api.get("ConfigMap", spec_name(NAME), jobs.namespace)["metadata"]["resourceVersion"]

    system = control_plane.kubectl.inside(SYSTEM)
    system.run("rollout", "restart", f"deployment/{OPERATOR}")
    system.run("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s", seconds=130)
    lost = workers(jobs)
    for pod in lost.values():
        api.delete("Pod", pod, jobs.namespace)

    def replaced() -> bool:
        connected = jobs.status(NAME)["workers"].get("connected")
        if set(workers(jobs)) & set(lost) or connected != len(lost):
            raise NotYet(f"{connected} workers are connected")
        return True

    until(replaced, "other pods of the workers", seconds=120, every=0.5)
    now = jobs.status(NAME)
    assert now["phase"] == Phase.RUNNING
    jobs.in_round(NAME, now["progress"]["round"] + 2)
    after = api.get("ConfigMap", spec_name(NAME), jobs.namespace)["metadata"]["resourceVersion"]
    assert after == before, "the operator has not written it"


def workers(jobs: Jobs) -> dict[str, str]:
    """Return the names of the workers' pods that run, by uid."""
    pods = jobs.pods(NAME, Role.WORKER)
    return {
        pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"
    }
