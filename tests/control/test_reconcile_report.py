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
from tests.control.builders import container, ended, live, pod, true, unschedulable
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


def test_an_aggregator_that_starts_over_ends_the_reporting() -> None:
    world = up(**EMPTY_DIR)
    serving(world)
    world.settle()
    world.changes["live"] = live(round=1)
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING


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
    assert main_of(world)["args"] == ["--record", "/checkpoint/11111111-2222-3333-4444-555555555555"]
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
        "metadata": {"annotations": {"note": "of the aggregator"}},
        "spec": {
            "priorityClassName": "low",
            "securityContext": {"runAsUser": 1000},
            "containers": [{"name": "main", "env": [{"name": "ONLY", "value": "there"}]}],
        },
    }
    world = up(aggregator={**_kept(), "image": "mine:1", "podTemplate": template})
    done(world)
    world.settle()
    spec = world.jobs[REPORT]["spec"]["template"]["spec"]
    assert (spec["priorityClassName"], spec["securityContext"]["runAsUser"]) == ("low", 1000)
    assert spec["automountServiceAccountToken"] is False
    assert main_of(world)["image"] == "mine:1"
    assert "ONLY" not in {item["name"] for item in main_of(world)["env"]}


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
