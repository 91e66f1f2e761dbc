"""Jobs in real containers on real nodes, from `kubectl apply` to what is left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engram.spec.names import Condition, Phase, Reason, Role
from engram_operator.manifests.names import checkpoint_name
from engram_operator.status.build import MOST_BYTES, size_of
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import Cluster
from tests.cluster.node_level import NodeLevel
from tests.e2e.data import write_digits
from tests.e2e.examples import ENFORCE, digits_end_as_here, street_signs_train_where_they_belong
from tests.e2e.jobs import Jobs, build_job, condition_of
from tests.e2e.reference import run_here
from tests.e2e.volumes import Volumes

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(900)]

CHILDREN = ("Pod", "Job", "Service", "ConfigMap", "Secret", "PersistentVolumeClaim")


def small(rounds: int = 4, **parts: Any) -> Object:
    """Return the spec of a short run: two tasks of `rounds` rounds, two workers; `parts` replace fields."""
    return {
        "dataset": {"name": "digits", "partition": {"method": "iid"}},
        "tasks": {"count": 2, "classesPerTask": 2},
        "model": {"name": "cnn"},
        "training": {"roundsPerTask": rounds, "localSteps": 20, "batchSize": 16},
        "algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 20}},
        "workers": [{"name": "edge", "replicas": 2}],
        **parts,
    }


@pytest.mark.smoke
def test_the_digits_example_ends_as_on_this_machine(jobs: Jobs, tmp_path: Path) -> None:
    digits_end_as_here(jobs, tmp_path)


def test_a_finished_job_explains_itself(jobs: Jobs) -> None:
    jobs.apply(build_job("digits", small()))
    jobs.kubectl.wait("fij/digits", "condition=Complete", seconds=240)
    jobs.kubectl.wait("fij/digits", "condition=ReportReady", seconds=120)

    status = jobs.status("digits")
    wide = jobs.kubectl.run("get", "fij", "-o", "wide").splitlines()
    described = jobs.kubectl.run("describe", "fij", "digits")

    assert wide[0].split() == [
        *("NAME", "PHASE", "TASK", "ROUND", "ACCURACY", "FORGETTING", "WORKERS", "AGE"),
        *("ALGORITHM", "DATASET", "AGGREGATION", "REASON"),
    ]
    accuracy, forgetting = status["display"]["accuracy"], status["display"]["forgetting"]
    cells = wide[1].split()
    assert cells[:7] == ["digits", Phase.SUCCEEDED, "2/2", "8/8", accuracy, forgetting, "2/2"]
    assert cells[8:] == ["replay", "digits", "fedavg", Reason.FINISHED]
    assert size_of(status) < MOST_BYTES
    for kind in (Condition.ACCEPTED, Condition.COMPLETE, Condition.READY, Condition.REPORT_READY):
        assert condition_of(status, kind)["status"] == "True"
    for kind in (Condition.FAILED, Condition.DEGRADED, Condition.RECONCILING, Condition.STALLED):
        assert condition_of(status, kind)["status"] == "False"
    finished = f"All tasks are done: accuracy {accuracy}, forget rate {forgetting}."
    assert described.count(finished) >= 2  # a condition and an Event
    reasons = [item["reason"] for item in jobs.events("digits")]
    assert reasons[:3] == [Reason.CHECKPOINT_NOT_DURABLE, Reason.TRAINING, Reason.REPORT_PENDING]
    assert set(reasons[3:]) == {Reason.FINISHED, Reason.REPORT_STORED}  # within the same second
    assert {item["type"] for item in jobs.events("digits")} == {"Normal"}


def test_cameras_archive_and_gpu_train_where_they_belong(
    control_plane: Cluster, operator: str, api: Api, level: NodeLevel, volumes: Volumes, tmp_path: Path
) -> None:
    street_signs_train_where_they_belong(control_plane.kubectl, api, level, volumes, tmp_path)


def test_a_job_without_host_access_runs_where_restricted_is_enforced(
    jobs: Jobs, api: Api, volumes: Volumes, tmp_path: Path
) -> None:
    api.patch("Namespace", jobs.namespace, {"metadata": {"labels": {ENFORCE: "restricted"}}})
    file = write_digits(tmp_path / "digits.npz")
    jobs.kubectl.run("create", "configmap", "digits", f"--from-file={file}")
    volumes(checkpoint_name("inside"), jobs.namespace)
    dataset: Object = {"name": "npz", "volume": {"configMap": {"name": "digits"}}}
    group = {"name": "edge", "replicas": 2, "state": {"volume": {"emptyDir": {}}}}
    own = small(dataset=dataset, workers=[group], aggregator={"checkpoint": {"size": "100Mi"}})
    beyond = small(dataset={"name": "npz", "volume": {"hostPath": {"path": "/srv/digits"}}})

    jobs.apply(build_job("inside", own), build_job("beyond", beyond))
    refused = jobs.reach(
        "beyond",
        lambda status: condition_of(status, Condition.DEGRADED).get("status") == "True",
        "the refusal",
    )
    jobs.kubectl.wait("fij/inside", "condition=Complete", seconds=240)

    degraded = condition_of(refused, Condition.DEGRADED)
    assert degraded["reason"] == Reason.POD_SECURITY_VIOLATION
    for words in ("restricted", "hostPath", "privileged"):
        assert words in degraded["message"]
    assert Reason.POD_SECURITY_VIOLATION in [item["reason"] for item in jobs.events("beyond")]
    assert jobs.pods("beyond") == []
    here = build_job("inside", {**own, "dataset": {"name": "npz", "path": str(file)}})
    assert jobs.matrix("inside") == run_here(here, tmp_path)


def test_a_suspended_run_frees_the_nodes_and_goes_on_at_its_round(
    jobs: Jobs, volumes: Volumes, tmp_path: Path
) -> None:
    volumes(checkpoint_name("digits"), jobs.namespace)
    job = build_job("digits", small(rounds=100, aggregator={"checkpoint": {"size": "100Mi"}}))
    jobs.apply(job)
    jobs.in_round("digits", 3)

    jobs.change("digits", {"suspend": True})
    status = jobs.in_phase("digits", Phase.SUSPENDED)
    jobs.pods_gone("digits")
    reached = jobs.status("digits")["progress"]["round"]
    assert 3 <= reached < 200, status
    assert "activeSeconds" in status
    jobs.change("digits", {"suspend": False})
    resumed = jobs.in_phase("digits", Phase.RUNNING)
    jobs.kubectl.wait("fij/digits", "condition=Complete", seconds=240)

    assert resumed["progress"]["round"] >= reached
    log = jobs.kubectl.run("logs", jobs.pods("digits", Role.AGGREGATOR)[0]["metadata"]["name"])
    assert " round 1/200 " not in f" {log}"
    assert jobs.status("digits")["resumes"] == 1
    assert jobs.matrix("digits") == run_here(job, tmp_path)


def test_a_group_grows_and_shrinks_while_it_trains(jobs: Jobs, tmp_path: Path) -> None:
    file = write_digits(tmp_path / "digits.npz")
    jobs.kubectl.run("create", "configmap", "digits", f"--from-file={file}")
    dataset = {
        "name": "npz",
        "volume": {"configMap": {"name": "digits"}},
        "partition": {"method": "local"},
    }
    spec = small(rounds=2000, dataset=dataset)  # more than any machine trains before the newcomer's pod is up
    jobs.apply(build_job("digits", spec))
    jobs.in_round("digits", 2)

    jobs.change("digits", {"workers": [{**spec["workers"][0], "replicas": 3}]})
    grown = jobs.reach("digits", lambda status: status["display"]["workers"] == "3/3", "the newcomer")
    before = grown["progress"]["round"]
    newcomer = next(item for item in grown["workerStatuses"] if item["name"] == "trainworker-edge-2")
    jobs.reach("digits", lambda status: status["progress"]["round"] > before + 1, "a round with it")
    jobs.change("digits", {"workers": [{**spec["workers"][0], "replicas": 2}]})
    shrunk = jobs.reach("digits", lambda status: status["display"]["workers"] == "2/2", "the smaller group")
    before = shrunk["progress"]["round"]
    after = jobs.reach(
        "digits", lambda status: status["progress"]["round"] > before + 1, "a round without it"
    )

    assert newcomer["group"] == "edge"
    assert after["display"]["workers"] == "2/2"
    assert condition_of(after, Condition.DEGRADED)["status"] == "False"


def test_what_shall_go_goes(jobs: Jobs) -> None:
    jobs.apply(
        build_job("cleaned", small(runPolicy={"cleanPodPolicy": "All"})),
        build_job("kept", small(runPolicy={"cleanPodPolicy": "None"})),
        build_job("expiring", small(runPolicy={"ttlSecondsAfterFinished": 0})),
        build_job("deleted", small(rounds=500)),
    )

    jobs.in_round("deleted", 1)
    jobs.kubectl.delete("fij", "deleted", wait=False)
    jobs.nothing_left("deleted", CHILDREN)
    jobs.nothing_left("expiring", CHILDREN, seconds=240)  # it trains and is reported first
    for name in ("cleaned", "kept"):
        jobs.kubectl.wait(f"fij/{name}", "condition=Complete", seconds=240)
    jobs.pods_gone("cleaned")
    assert jobs.report("cleaned")
    assert jobs.status("cleaned")["metrics"]["accuracy"]
    jobs.kubectl.wait("fij/kept", "condition=ReportReady", seconds=120)
    assert len(jobs.pods("kept")) == 4  # the report's among them
