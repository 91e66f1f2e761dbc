"""`kubectl engram wait`: when it ends, and with which code."""

from __future__ import annotations

import pytest

from engram.errors import ConfigurationError
from engram.spec.names import Condition, Phase, Reason
from engram_kubectl.waiting import MET, NEVER, condition_named, seconds_of, verdict
from engram_operator.model import Object
from tests.control.builders import job_object
from tests.kubectl.jobs import condition, ended, running, stored_report

PENDING = condition(Condition.REPORT_READY, "False", Reason.REPORT_PENDING)
LOST = condition(Condition.REPORT_READY, "False", Reason.REPORT_FAILED, "The record is gone.")


@pytest.mark.parametrize(
    ("job", "awaited", "code"),
    [
        (job_object(), Condition.COMPLETE, None),
        (running(), Condition.COMPLETE, None),
        (ended(), Condition.COMPLETE, MET),
        (ended(Phase.FAILED), Condition.COMPLETE, NEVER),
        (ended(Phase.FAILED), Condition.FAILED, MET),
        (ended(), Condition.FAILED, NEVER),
        (ended(), Condition.WORKERS_READY, NEVER),
        (running(), Condition.REPORT_READY, None),
        (ended(ready=PENDING), Condition.REPORT_READY, None),
        (ended(ready=stored_report()), Condition.REPORT_READY, MET),
        (ended(ready=LOST), Condition.REPORT_READY, NEVER),
        (ended(Phase.FAILED), Condition.REPORT_READY, NEVER),
    ],
)
def test_a_wait_ends_when_its_outcome_is_known(job: Object, awaited: Condition, code: int | None) -> None:
    assert verdict(job, awaited) == code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("1d", 86400.0), ("0", None), ("0s", None)],
)
def test_times_are_written_as_kubectl_takes_them(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "soon", "1 h", "5w"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--timeout: .* is no duration: write seconds, or 90s"):
        seconds_of(text)


def test_conditions_may_be_spelt_as_kubectl_spells_them() -> None:
    assert condition_named("complete") is Condition.COMPLETE
    assert condition_named("condition=ReportReady") is Condition.REPORT_READY
    with pytest.raises(
        ConfigurationError, match=r"^--for: 'done' is nothing to wait for: write one of Complete,"
    ):
        condition_named("done")
