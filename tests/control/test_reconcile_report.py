"""The report of a run: when its Job is made, what ReportReady says, where it is put, how it can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engram.spec.compact import CompactReport
from engram.spec.names import Condition, Phase, Reason, Role
from engram_operator.model import PodView
from tests.control.builders import UID, ago, container, ended, live, pod, true, unschedulable
from tests.control.simulation import (
    AGGREGATION,
    COMPACT,
    FLEET,
    REPORT,
    World,
    done,
    edit,
    failed,
    printed,
    says,
    serving,
    status,
    up,
)

EMPTY_DIR: dict[str, Any] = {"aggregator": {}}


def report_pod(**changes: Any) -> PodView:
    """The report's pod, running."""
    return replace(pod(), name=f"{REPORT}-abcde", role=Role.REPORT, owner=REPORT, **changes)


def main_of(world: World) -> dict[str, Any]:
    """The main container of the report's Job."""
    container: dict[str, Any] = world.jobs[REPORT]["spec"]["template"]["spec"]["containers"][0]
    return container


def mounts(world: World) -> dict[str, dict[str, Any]]:
    """What the report's pod mounts, by path."""
    spec = world.jobs[REPORT]["spec"]["template"]["spec"]
    sources = {item["name"]: item for item in spec["volumes"]}
    return {
        mount["mountPath"]: {**sources[mount["name"]], **mount}
        for mount in spec["containers"][0]["volumeMounts"]
    }


def ready(world: World) -> tuple[str, str]:
    return says(world, Condition.REPORT_READY)


def message(world: World) -> str:
    return next(
        str(item["message"]) for item in status(world)["conditions"] if item["type"] == Condition.REPORT_READY
    )


# A record that only the aggregator has.


def test_the_record_of_an_empty_dir_is_fetched_while_the_aggregator_serves_it() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    assert main_of(world)["args"] == [
        "--record",
        "http://digits-aggregation.lab.svc.cluster.local:9464/v1/record",
        "--deadline",
        "60",
    ]
    assert "/checkpoint" not in mounts(world)
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.REPORTING, Reason.REPORT_PENDING)
    assert found["message"].startswith("All tasks are done. The report's pod fetches the record")
    assert says(world, Condition.COMPLETE)[0] == "False"
    assert world.events == [Reason.REPORT_PENDING]


def test_reporting_is_told_once_and_lasts_until_the_verdict() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    world.changes["live"] = None  # the aggregator has ended, and its Job does not say so yet
    world.settle()
    assert status(world)["phase"] == Phase.REPORTING
    done(world)
    printed(world)
    world.settle()
    assert (status(world)["phase"], *ready(world)) == (Phase.SUCCEEDED, "True", Reason.REPORT_STORED)
    assert world.events == [Reason.REPORT_PENDING, Reason.FINISHED, Reason.REPORT_STORED]


@pytest.mark.parametrize(
    "said", [{"phase": "Succeeded"}, {"phase": "Running", "recordServed": True}, {"phase": "Suspended"}]
)
def test_nothing_is_made_before_the_aggregator_serves_the_record_of_an_ended_run(
    said: dict[str, Any],
) -> None:
    world = up(**EMPTY_DIR)
    world.changes["live"] = live(**said)
    world.settle()
    assert REPORT not in world.jobs
    assert status(world)["phase"] == Phase.RUNNING


def test_a_failed_run_has_a_report_too() -> None:
    world = up(**EMPTY_DIR)
    serving(world, Phase.FAILED)
    world.settle()
    assert REPORT in world.jobs
    assert (status(world)["phase"], says(world, Condition.PROGRESSING)[1]) == ("Reporting", Reason.RUN_FAILED)
    failed(world, ended(None, 42, "the loss is nan"), reason="PodFailurePolicy")
    printed(world)
    world.settle()
    assert (status(world)["phase"], *ready(world)) == (Phase.FAILED, "True", Reason.REPORT_STORED)


def test_an_aggregator_that_starts_over_takes_the_report_back() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    world.views[REPORT] = {"conditions": {"Failed": true("PodFailurePolicy", "exit code 43")}, "active": 0}
    world.changes["live"] = live(round=1)
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING
    assert REPORT not in world.jobs
    assert Condition.REPORT_READY not in {item["type"] for item in status(world)["conditions"]}
    del world.views[REPORT]
    serving(world)
    world.settle()
    assert REPORT in world.jobs
    assert status(world)["phase"] == Phase.REPORTING


@pytest.mark.parametrize("spec", [EMPTY_DIR, {}])
def test_a_run_that_is_done_is_not_failed_by_its_deadline(spec: dict[str, Any]) -> None:
    world = up(runPolicy={"activeDeadlineSeconds": 60}, **spec)
    serving(world)
    world.settle()
    world.now += timedelta(seconds=100)
    world.settle()
    assert says(world, Condition.FAILED)[0] == "False"
    world.now += timedelta(seconds=600)  # an aggregator that never ends
    world.settle()
    assert says(world, Condition.FAILED) == ("True", Reason.DEADLINE_EXCEEDED)


def test_trouble_of_the_aggregator_is_not_hidden_by_reporting() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    world.changes["live"] = None
    world.pods = (replace(pod(), deleting=ago(120)), *FLEET[1:])  # its node is gone
    world.settle()
    found = status(world)
    assert (found["phase"], found["reason"]) == (Phase.RUNNING, Reason.AGGREGATOR_NODE_LOST)
    assert world.events[-1] == Reason.AGGREGATOR_NODE_LOST


def test_what_refuses_the_reports_pod_is_nothing_to_mend_in_the_run() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    world.changes["refusals"] = {REPORT: "exceeded quota: pods"}
    world.settle()
    assert says(world, Condition.DEGRADED)[0] == "False"
    assert "exceeded quota" in message(world)


def test_an_edited_volume_makes_no_record_durable() -> None:
    world = up(**EMPTY_DIR)
    edit(world, aggregator={"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "late"}}}})
    serving(world)
    for complete in (True, False, True, False):
        world.changes["complete"] = complete
        world.settle()
        assert status(world)["phase"] == Phase.REPORTING
    assert world.events.count(Reason.REPORT_PENDING) == 1


def test_a_record_that_nobody_fetched_is_gone_with_its_pod() -> None:
    world = up(**EMPTY_DIR)
    world.changes["live"] = live()
    world.settle()
    world.changes["live"] = None  # the operator was down when it was served
    done(world)
    world.settle()
    assert REPORT not in world.jobs
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert "spec.aggregator.checkpoint" in message(world)
    assert status(world)["phase"] == Phase.SUCCEEDED
    assert world.events[-2:] == [Reason.FINISHED, Reason.REPORT_FAILED]


def test_a_pod_that_ended_unheard_before_its_jobs_verdict_makes_no_report_job() -> None:
    world = up(**EMPTY_DIR)
    world.pods = (ended(None, 0), *FLEET[1:])  # its Job's own event is still to come
    world.settle()
    assert REPORT not in world.jobs
    assert status(world)["phase"] != Phase.REPORTING


def test_a_record_behind_a_name_that_is_taken_says_so() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.changes["foreign"] = (f"Job/{REPORT}",)
    world.settle()
    done(world)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert message(world).startswith(f"Job {REPORT} of this namespace is not this job's")


def test_no_grace_and_no_volume_means_no_report() -> None:
    world = up(aggregator={}, report={"graceSeconds": 0})
    serving(world)
    world.settle()
    done(world)
    world.settle()
    assert REPORT not in world.jobs
    assert Condition.REPORT_READY not in {item["type"] for item in status(world)["conditions"]}


# A record on the checkpoint's volume.


def test_a_durable_record_is_read_when_the_aggregator_has_gone() -> None:
    world = up()
    serving(world)
    world.settle()
    assert REPORT not in world.jobs, "both would mount the checkpoint's volume"
    done(world)
    world.views[AGGREGATION]["active"] = 1
    world.settle()
    assert REPORT not in world.jobs
    assert ready(world) == ("False", Reason.REPORT_PENDING)
    assert "the aggregator's pod has not gone yet" in message(world)
    world.views[AGGREGATION]["active"] = 0
    world.settle()
    assert main_of(world)["args"][:2] == ["--record", f"/checkpoint/{UID}"]
    kept = mounts(world)["/checkpoint"]
    assert (kept["persistentVolumeClaim"], kept["readOnly"]) == ({"claimName": "store"}, True)


def test_a_record_on_a_host_path_is_read_on_that_node() -> None:
    world = up(aggregator={"checkpoint": {"volume": {"hostPath": {"path": "/srv/kept"}}}})
    world.pods = tuple(replace(view, node="cloud") for view in FLEET)
    world.settle()
    world.changes["live"] = live()
    world.settle()
    done(world)
    world.pods = tuple(replace(view, node="cloud") for view in world.pods)
    world.settle()
    terms = world.jobs[REPORT]["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    required = terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]
    assert required["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["cloud"]}]


def test_a_run_that_closed_no_round_has_nothing_to_report() -> None:
    world = up()
    failed(world, ended(None, 42, "no such dataset"), reason="PodFailurePolicy")
    world.settle()
    assert REPORT not in world.jobs
    assert Condition.REPORT_READY not in {item["type"] for item in status(world)["conditions"]}


def test_an_aggregator_whose_pod_never_goes_ends_the_wait() -> None:
    world = up()
    done(world)
    world.pods = (*world.pods, pod())  # on a node that is gone
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_PENDING)
    world.now += timedelta(seconds=600)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert "`engram report`" in message(world)


# The pod.


def test_the_full_report_goes_to_its_volume() -> None:
    claim = {"persistentVolumeClaim": {"claimName": "reports"}}
    world = up(report={"volume": claim, "deadlineSeconds": 90})
    done(world)
    world.settle()
    assert mounts(world)["/report"]["persistentVolumeClaim"] == claim["persistentVolumeClaim"]
    environment = {item["name"]: item["value"] for item in main_of(world)["env"]}
    assert environment["ENGRAM_REPORT_DIR"] == "/report"
    assert world.jobs[REPORT]["spec"]["activeDeadlineSeconds"] == 90


def test_the_pod_runs_where_and_as_the_aggregator_may() -> None:
    template = {
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}, "labels": {"team": "vision"}},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "low",
            "securityContext": {"runAsUser": 1000},
            "containers": [
                {"name": "main", "image": "mine:2", "env": [{"name": "ONLY", "value": "there"}]},
                {"name": "beside", "image": "b:1"},
            ],
        },
    }
    world = up(aggregator={**_kept(), "image": "mine:1", "podTemplate": template})
    done(world)
    world.settle()
    made = world.jobs[REPORT]["spec"]["template"]
    assert made["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert (made["metadata"]["labels"]["team"], made["metadata"]["labels"]["engram.dev/role"]) == (
        "vision",
        "report",
    )
    spec = made["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert [item["name"] for item in spec["containers"]] == ["main"]
    assert (spec["priorityClassName"], spec["securityContext"]["runAsUser"]) == ("low", 1000)
    assert spec["automountServiceAccountToken"] is False
    assert main_of(world)["image"] == "mine:2"
    assert "ONLY" not in {item["name"] for item in main_of(world)["env"]}


@pytest.mark.parametrize("policy", ["Running", "All"])
@pytest.mark.parametrize("spec", [EMPTY_DIR, {}])
def test_the_image_is_the_one_that_wrote_the_record(spec: dict[str, Any], policy: str) -> None:
    world = up(runPolicy={"cleanPodPolicy": policy}, **spec)
    world.settings = replace(world.settings, image="engram-runtime:next")  # the operator was upgraded
    serving(world)
    world.settle()
    world.changes["live"] = None
    done(world)
    world.settle()
    assert main_of(world)["image"] == "engram-runtime:test"


def test_a_pod_that_fetches_prefers_nodes_with_the_clusters_network() -> None:
    world = up(aggregator={"placement": "any"})
    serving(world)
    world.settle()
    affinity = world.jobs[REPORT]["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchExpressions"][0]["operator"] == "DoesNotExist"


def test_a_record_on_a_host_path_is_read_on_its_node_also_when_the_pod_is_gone() -> None:
    world = up(aggregator={"checkpoint": {"volume": {"hostPath": {"path": "/srv/kept"}}}})
    world.pods = tuple(replace(view, node="cloud") for view in FLEET)
    world.changes["live"] = live()
    world.settle()
    world.changes["live"] = None
    done(world)
    world.pods = world.pods[1:]
    world.now += timedelta(seconds=10)
    world.settle()
    assert "cloud" in str(world.jobs[REPORT]["spec"]["template"]["spec"]["affinity"])


def _kept() -> dict[str, Any]:
    return {"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "store"}}}}


# What becomes of it.


def reporting() -> World:
    """A run that has succeeded, and whose report's Job is there."""
    world = up()
    world.changes["live"] = live()
    world.settle()
    world.changes["live"] = None
    done(world)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_PENDING)
    world.writes.clear()
    world.events.clear()
    return world


def test_what_the_pod_printed_is_kept_in_the_config_map() -> None:
    world = reporting()
    printed(world, replace(COMPACT, location="lab-digits-11111111", notes=("report.html is too large",)))
    world.settle()
    config = world.objects[f"ConfigMap/{REPORT}"]
    assert config["data"] == {"report.json": "{}", "report.md": "# digits\n"}
    assert config["metadata"]["ownerReferences"][0]["name"] == "digits"
    assert status(world)["report"] == {
        "location": "lab-digits-11111111",
        "configMap": REPORT,
        "digest": COMPACT.digest,
    }
    assert message(world) == (
        "The report is in ConfigMap digits-report and in spec.report.volume at lab-digits-11111111. "
        "report.html is too large."
    )
    assert world.writes == [f"apply ConfigMap/{REPORT}", "status", "event ReportStored"]
    assert status(world)["phase"] == Phase.SUCCEEDED


def test_once_stored_nothing_is_written_again() -> None:
    world = reporting()
    printed(world)
    world.settle()
    world.writes.clear()
    edit(world, runPolicy={"cleanPodPolicy": "None"})
    world.settle()
    assert world.writes == ["status"], "the new generation, and nothing else"
    world.jobs.clear()
    world.writes.clear()
    assert world.step().wake_after is None
    assert world.writes == []


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        (
            (
                report_pod(
                    phase="Failed",
                    main=container("terminated", "Error", "record.json is damaged", exit_code=43),
                ),
            ),
            "PodFailurePolicy",
            "record.json is damaged",
        ),
        ((report_pod(main=None, phase="Pending"),), "DeadlineExceeded", "spec.report.deadlineSeconds"),
        ((), "BackoffLimitExceeded", "Job has failed"),
    ],
)
def test_a_failed_job_says_why_and_changes_no_result(
    pods: tuple[PodView, ...], reason: str, words: str
) -> None:
    world = reporting()
    world.views[REPORT] = {"conditions": {"Failed": true(reason, "Job has failed")}, "active": 0}
    world.pods = (*world.pods, *pods)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert words in message(world)
    assert message(world).endswith("The run's result stands.")
    assert (status(world)["phase"], says(world, Condition.COMPLETE)[0]) == (Phase.SUCCEEDED, "True")
    assert world.events == [Reason.REPORT_FAILED]


def test_what_holds_up_the_pod_is_said_without_an_event() -> None:
    world = reporting()
    world.pods = (*world.pods, replace(unschedulable(), name="p", role=Role.REPORT, owner=REPORT))
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_PENDING)
    assert "Insufficient cpu" in message(world)
    assert "delete the job" not in message(world), "the run is over"
    assert world.events == []


def test_a_job_that_cannot_be_made_gives_up_at_its_deadline() -> None:
    world = up()
    done(world)
    world.changes["refusals"] = {REPORT: "exceeded quota: jobs"}
    world.step()
    plan = world.plan()
    assert plan.create
    assert plan.wake_after == 10
    world.now += timedelta(seconds=601)
    world.step()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert "exceeded quota" in message(world)


def test_a_log_that_cannot_be_read_is_tried_again_until_the_deadline() -> None:
    world = reporting()
    printed(world, None, "the log of pod x cannot be read: 502")
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_PENDING)
    assert "cannot be read" not in message(world), "the pod's own event may only be late"
    world.now += timedelta(seconds=10)
    world.settle()
    assert "cannot be read" in message(world)
    assert world.step().wake_after == 10
    world.now += timedelta(seconds=601)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)


def test_a_config_map_of_somebody_else_is_left_alone() -> None:
    world = reporting()
    printed(world)
    world.changes["foreign"] = (f"ConfigMap/{REPORT}",)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert f"ConfigMap/{REPORT}" not in world.objects


def test_somebody_who_undoes_the_config_map_does_not_keep_the_job_for_ever() -> None:
    world = reporting()
    printed(world)
    for _ in range(2):
        assert world.step().apply
        world.objects[f"ConfigMap/{REPORT}"]["data"] = {}
        world.now += timedelta(seconds=300)
    world.settle()
    assert ready(world) == ("False", Reason.REPORT_FAILED)
    assert "somebody else writes" in message(world)


def test_an_operator_that_was_down_for_long_stores_the_report_all_the_same() -> None:
    world = reporting()
    printed(world)
    world.now += timedelta(days=1)
    world.settle()
    assert ready(world) == ("True", Reason.REPORT_STORED)


def test_labels_that_a_policy_adds_to_the_config_map_do_not_matter() -> None:
    world = reporting()
    printed(world)
    world.step()
    world.objects[f"ConfigMap/{REPORT}"]["metadata"]["labels"] = {"policy": "mine"}
    world.settle()
    assert ready(world) == ("True", Reason.REPORT_STORED)


def test_a_report_job_deleted_by_hand_is_made_again_where_the_record_is_kept() -> None:
    world = reporting()
    world.jobs.pop(REPORT)
    world.settle()
    assert REPORT in world.jobs


def test_an_incomplete_look_decides_nothing() -> None:
    world = reporting()
    printed(world, CompactReport({"report.json": "{}"}))
    world.changes["complete"] = False
    world.changes["objects"] = {}
    assert world.step().wake_after == 10
    assert world.writes == []
    assert ready(world) == ("False", Reason.REPORT_PENDING)


@pytest.mark.parametrize("end", [printed, lambda world: printed(world, None, "damaged")])
def test_a_job_outlives_its_time_for_its_report(end: Callable[[World], None]) -> None:
    world = up(report={"deadlineSeconds": 60}, runPolicy={"ttlSecondsAfterFinished": 0})
    done(world)
    world.settle()
    assert world.raw is not None
    end(world)
    world.step()
    world.now += timedelta(seconds=60)
    for _ in range(4):
        if world.raw is not None:
            world.step()
    assert world.raw is None


def test_a_report_that_is_awaited_keeps_its_pod_with_any_policy() -> None:
    world = up(runPolicy={"cleanPodPolicy": "All"})
    done(world)
    world.settle()
    assert set(world.jobs) == {REPORT}
