"""Whose logs are printed, and what came over the training connection, as the aggregator writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.federation.worker import TRACEBACK_CHARACTERS
from engram.run.observers import Lines
from engram_kubectl.errors import NothingThereError
from engram_kubectl.logs import Speaker, choose, speakers_of, told
from tests.control.builders import job_object
from tests.control.edge import raw_pod
from tests.kubectl.jobs import running

CRASH = """ValueError: shapes do not fit
Traceback (most recent call last):
  File "a.py", line 3
ValueError: shapes do not fit"""


def log_of(*ends: tuple[str, str, int]) -> str:
    """The aggregator's log around the ends of workers, as it writes them itself."""
    written = ["aggregator: listening on 7363"]
    lines = Lines([[0, 1]], [4], written.append)
    for worker, text, code in ends:
        lines.worker_failed(worker, text, code)
        written.append("round 2/4  task 1/1  1 of 2 updates  loss 0.5  10 kB  0.1 s")
    return "\n".join(written)


def test_a_traceback_is_the_workers_and_the_rounds_are_not() -> None:
    found = told(
        log_of(("trainworker-edge-1", CRASH, 1), ("trainworker-edge-0", "no data: put some there", 43))
    )
    assert found == {
        "trainworker-edge-1": f"exit code 1: {CRASH}",
        "trainworker-edge-0": "exit code 43: no data: put some there",
    }


def test_the_last_end_of_a_worker_counts() -> None:
    log = log_of(("trainworker-edge-1", CRASH, 1), ("trainworker-edge-1", "again", 75))
    assert told(log) == {"trainworker-edge-1": "exit code 75: again"}


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
)
def test_no_text_of_a_worker_breaks_the_reading(text: str) -> None:
    found = told(log_of(("trainworker-edge-1", text[:TRACEBACK_CHARACTERS], 1)))
    assert found["trainworker-edge-1"].startswith("exit code 1: ")


def test_pods_speak_under_the_names_of_their_workers() -> None:
    worker = raw_pod("digits-edge-1-abcde")
    worker["metadata"]["labels"] |= {"engram.dev/role": "worker", "engram.dev/group": "edge"}
    worker["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": "1"}
    aggregator = raw_pod("digits-aggregation-abcde")
    aggregator["metadata"]["labels"]["engram.dev/role"] = "aggregator"
    report = raw_pod("digits-report-abcde")
    report["metadata"]["labels"]["engram.dev/role"] = "report"
    assert speakers_of([worker, aggregator, report]) == [
        Speaker("trainworker-edge-1", "digits-edge-1-abcde", "edge1"),
        Speaker("aggregator", "digits-aggregation-abcde", "edge1"),
    ]


def test_every_worker_that_is_known_is_asked_in_order_of_its_number() -> None:
    pods = [Speaker(f"trainworker-edge-{number}", f"pod-{number}", "") for number in (10, 2)]
    assert choose(pods, "", running()) == [f"trainworker-edge-{number}" for number in (0, 1, 2, 10)]
    assert choose(pods, "edge-2", running()) == ["trainworker-edge-2"]
    assert choose(pods, "aggregator", running()) == ["aggregator"]


def test_a_worker_that_is_none_is_told_who_there_is() -> None:
    with pytest.raises(
        ConfigurationError, match="there is no worker cloud-7: write one of aggregator, trainworker-edge-0"
    ):
        choose([], "cloud-7", running())


def test_a_job_without_pods_says_where_logs_go() -> None:
    with pytest.raises(NothingThereError, match="job digits has no pods of workers"):
        choose([], "", job_object())
