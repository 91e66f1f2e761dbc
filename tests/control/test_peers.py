"""Which jobs `spec.report.compareWith` means, and how the report's pod is told."""

from __future__ import annotations

from typing import Any

import pytest

from engram.spec.names import Condition, Reason
from engram_operator.model import Object
from engram_operator.peers import MOST_PEERS, compares, peers_of, selects
from tests.control.builders import job_object
from tests.control.edge import edge, run
from tests.control.simulation import REPORT, serving, up


def other(name: str, *, namespace: str = "lab", done: str = "2026-01-01T00:00:00Z", **labels: str) -> Object:
    """Another job, with a report if it is `done`."""
    job = job_object(name)
    job["metadata"] |= {"namespace": namespace, "labels": labels, "uid": f"uid-{name}"}
    if done:
        ready = {"type": Condition.REPORT_READY, "status": "True", "reason": Reason.REPORT_STORED}
        job["status"] = {"completionTime": done, "conditions": [ready]}
    return job


def comparing(**wanted: Any) -> Object:
    return job_object(report={"compareWith": wanted})


def means(*jobs: Object, **wanted: Any) -> tuple[str, ...]:
    return peers_of(comparing(**wanted), lambda: jobs)


def test_named_jobs_count_whether_they_exist_or_not() -> None:
    assert means(names=["b", "a", "b", "digits"]) == ("b", "a")


@pytest.mark.parametrize("name", ["../spec", "a/b", "", "A", "a\n", "a" * 41])
def test_what_can_be_no_jobs_name_reaches_no_path(name: str) -> None:
    assert means(names=[name, "fine"]) == ("fine",)


def test_a_selector_finds_those_with_a_report_the_newest_first() -> None:
    jobs = (
        other("old", team="blue"),
        other("new", team="blue", done="2026-01-02T00:00:00Z"),
        other("running", team="blue", done=""),
        other("red", team="red"),
        other("elsewhere", namespace="prod", team="blue"),
        other("digits", team="blue"),
    )
    assert means(*jobs, selector={"matchLabels": {"team": "blue"}}) == ("new", "old")
    assert means(*jobs, names=["old"], selector={"matchLabels": {"team": "blue"}}) == ("old", "new")


def test_a_leaderboard_has_an_end() -> None:
    jobs = [other(f"job-{number}", team="blue") for number in range(2 * MOST_PEERS)]
    assert len(means(*jobs, selector={"matchLabels": {"team": "blue"}})) == MOST_PEERS


@pytest.mark.parametrize(
    ("expression", "labels", "does"),
    [
        ({"key": "a", "operator": "In", "values": ["x", "y"]}, {"a": "x"}, True),
        ({"key": "a", "operator": "In", "values": ["x"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["x"]}, {}, True),
        ({"key": "a", "operator": "NotIn", "values": ["x"]}, {"a": "x"}, False),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
        ({"key": "a", "operator": "Near"}, {"a": ""}, False),
    ],
)
def test_selectors_are_those_of_kubernetes(
    expression: dict[str, Any], labels: dict[str, str], does: bool
) -> None:
    assert selects({"matchExpressions": [expression]}, labels) is does


def test_who_compares_with_nobody_costs_nothing() -> None:
    def never() -> list[Object]:
        raise AssertionError("the jobs were gone through")

    assert not compares(job_object())
    assert peers_of(job_object(), never) == ()
    assert peers_of(comparing(names=["a"]), never) == ("a",)


def test_the_operator_sees_the_jobs_that_are_meant() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job(report={"compareWith": {"selector": {"matchLabels": {"team": "blue"}}}})
            it.table.put(await it.server.put(other("replay", team="blue")))
            assert (await it.look()).observed.peers == ("replay",)

    run(scenario())


def report_spec(**report: Any) -> dict[str, Any]:
    """The pod spec of the report's Job of a job with these settings, beside which `replay` has a report."""
    world = up(aggregator={}, report=report)
    world.changes["peers"] = ("replay", "icarl")
    serving(world)
    world.settle()
    spec: dict[str, Any] = world.jobs[REPORT]["spec"]["template"]["spec"]
    return spec


def test_the_pod_mounts_the_reports_of_the_others() -> None:
    spec = report_spec()
    (main,) = spec["containers"]
    environment = {item["name"]: item["value"] for item in main["env"]}
    assert environment["ENGRAM_REPORT_PEERS"] == "/peers/replay:/peers/icarl"
    assert "--peer" not in main["args"], "an image of an older version would refuse it"
    (volume,) = (item for item in spec["volumes"] if item["name"] == "peers")
    assert volume["projected"]["sources"][0] == {
        "configMap": {
            "name": "replay-report",
            "items": [{"key": "report.json", "path": "replay/report.json"}],
            "optional": True,
        }
    }
    (mount,) = (item for item in main["volumeMounts"] if item["name"] == "peers")
    assert (mount["mountPath"], mount["readOnly"]) == ("/peers", True)


def test_the_pod_is_told_which_prometheus_and_with_what() -> None:
    spec = report_spec(prometheus={"url": "https://p.example/$(HOME)", "secretName": "login"})
    (main,) = spec["containers"]
    environment = {item["name"]: item["value"] for item in main["env"]}
    assert environment["ENGRAM_PROMETHEUS_URL"] == "https://p.example/$$(HOME)"
    assert environment["ENGRAM_PROMETHEUS_SECRET_DIR"] == "/etc/engram/prometheus"
    (volume,) = (item for item in spec["volumes"] if item["name"] == "prometheus")
    assert volume["secret"] == {"secretName": "login", "defaultMode": 0o440, "optional": True}


def test_without_an_address_nobody_is_asked() -> None:
    spec = report_spec(prometheus={"secretName": "login"})
    assert "prometheus" not in {item["name"] for item in spec["volumes"]}
    assert "ENGRAM_PROMETHEUS_URL" not in {item["name"] for item in spec["containers"][0]["env"]}
