"""The end of the report's log: read with bounds, and every way in which it can be none."""

from __future__ import annotations

from base64 import b64encode
from bisect import bisect_left
from dataclasses import replace
from random import Random

import pytest

from engram.spec.compact import MOST_LINES, CompactReport, pack
from engram.spec.names import Condition, Reason
from engram_operator.model import JobView, Object, PodView
from engram_operator.reports import LAST_LINES, Found, read_report
from tests.control.api_server import Refusal
from tests.control.builders import ended, job_view, pod, true
from tests.control.edge import batch_job, edge, raw_pod, run

REPORT = CompactReport({"report.json": "{}", "report.md": "# digits\n"}, "lab-digits")
JOB: JobView = job_view("digits-report", conditions={"Complete": true()})
DONE = replace(ended(None, 0), name="digits-report-abcde", owner="digits-report")
LOG = "/api/v1/namespaces/lab/pods/digits-report-abcde/log"


def test_the_last_lines_are_asked_for_and_no_more() -> None:
    async def scenario() -> None:
        async with edge() as it:
            it.server.texts[LOG] = f"reading the record\n{pack(REPORT)}"
            assert await read_report(it.api, "lab", JOB, [DONE]) == Found(REPORT)
            (asked,) = it.server.reads("pods")
            assert asked.query == {"container": "main", "tailLines": "232", "limitBytes": "1856000"}

    run(scenario())


def test_the_largest_report_is_found_before_what_others_say_after_it() -> None:
    text = b64encode(Random(0).randbytes(560_000)).decode()

    def too_large(size: int) -> bool:
        return len(pack(CompactReport({"report.json": text[:size]})).splitlines()) < 10

    largest = CompactReport({"report.json": text[: bisect_left(range(len(text)), True, key=too_large) - 1]})
    block = pack(largest).splitlines()
    assert len(block) == MOST_LINES
    log = [*block, *["Exception ignored in: <function x>"] * 50]

    async def scenario() -> None:
        async with edge() as it:
            it.server.texts[LOG] = "\n".join(log[-LAST_LINES:])
            assert await read_report(it.api, "lab", JOB, [DONE]) == Found(largest)

    run(scenario())


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        ("all is well\n", "holds no report"),
        (pack(REPORT).replace("H4sI", "AAAA", 1), "damaged"),
        ("\ufffd" * 10, "holds no report"),
    ],
)
def test_a_log_without_a_report_says_so(log: str, problem: str) -> None:
    async def scenario() -> None:
        async with edge() as it:
            it.server.texts[LOG] = log
            found = await read_report(it.api, "lab", JOB, [DONE])
            assert found.report is None
            assert problem in found.problem

    run(scenario())


def test_a_kubelet_out_of_reach_is_a_problem_and_no_failure() -> None:
    async def scenario() -> None:
        async with edge() as it:
            it.server.refuse = lambda asked: Refusal(502, "BadGateway", "dial tcp: i/o timeout")
            found = await read_report(it.api, "lab", JOB, [DONE])
            assert "digits-report-abcde cannot be read: dial tcp" in found.problem

    run(scenario())


@pytest.mark.parametrize("pods", [[], [pod()], [replace(DONE, owner="digits-edge")]])
def test_a_pod_that_is_gone_took_its_log_with_it(pods: list[PodView]) -> None:
    async def scenario() -> None:
        async with edge() as it:
            found = await read_report(it.api, "lab", JOB, pods)
            assert "gone" in found.problem
            assert it.server.asked == []

    run(scenario())


def finished(reason: Reason) -> Object:
    """Status of a job that has ended, with what is said of its report."""
    report = {
        "type": str(Condition.REPORT_READY),
        "status": "True" if reason is Reason.REPORT_STORED else "False",
        "reason": str(reason),
        "lastTransitionTime": "2026-01-02T12:00:00Z",
    }
    return {"completionTime": "2026-01-02T12:00:00Z", "conditions": [report]}


@pytest.mark.parametrize(
    ("reason", "read"),
    [(Reason.REPORT_PENDING, True), (Reason.REPORT_STORED, False), (Reason.REPORT_FAILED, False)],
)
def test_the_log_of_a_finished_job_is_read_until_its_report_is_stored(reason: Reason, read: bool) -> None:
    async def scenario() -> None:
        async with edge() as it:
            job = await it.job()
            it.table.put(await it.server.put({**job, "status": finished(reason)}))
            it.server.texts[LOG] = pack(REPORT)
            done = batch_job("digits-report", succeeded=1)
            done["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
            it.tables.jobs.put(await it.server.put(done))
            last = raw_pod("digits-report-abcde", phase="Succeeded", owner="digits-report")
            state = {"name": "main", "state": {"terminated": {"exitCode": 0}}}
            last["status"]["containerStatuses"] = [state]
            it.tables.pods.put(await it.server.put(last))
            it.server.asked.clear()
            sight = await it.look()
            assert (sight.observed.report == REPORT) is read
            assert bool(it.server.asked) is read, "a finished job costs no request"
            again = await it.look()
            assert again.observed.complete is read, "what was just written is seen at once"

    run(scenario())
