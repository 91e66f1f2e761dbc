"""Status in plain words: pure, whatever is in it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from engram.spec.names import Condition, Phase, Reason
from engram_kubectl import show, words
from engram_kubectl.jobs import duration, key_of
from tests.control.builders import NOW, job_object
from tests.kubectl.jobs import condition, ended, running


def drawn(what: RenderableType, width: int = 160) -> str:
    """What a pipe gets of a renderable."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(what)
    return out.getvalue()


def test_a_running_job_is_one_line() -> None:
    assert words.line(running(), NOW) == (
        "Running  48%  task 3/5  round 13/25  accuracy 93.1%  forgetting 4.2%  workers 1/2  about 3m left"
    )


def test_a_job_that_nobody_has_seen_says_so() -> None:
    assert words.line(job_object(), NOW) == "Unseen"
    assert words.headline(job_object()) == words.UNSEEN


def test_conditions_say_what_is_bad_and_leave_out_what_is_not_news() -> None:
    job = running()
    job["status"]["conditions"].append(condition(Condition.SUSPENDED, "False", "Active"))
    job["status"]["conditions"].append(condition(Condition.STALLED, "False", "Active"))
    said = {kind: (fine, sentence) for kind, fine, sentence in words.conditions(job)}
    assert set(said) == {"Accepted", "Progressing", "Degraded"}
    assert said["Degraded"] == (
        False,
        "something is not as it should be (WorkerDisconnected): trainworker-edge-1 is silent.",
    )
    assert said["Accepted"][0]


def test_of_a_run_that_is_done_nobody_asks_whether_it_moves() -> None:
    job = ended()
    for kind in (Condition.WORKERS_READY, Condition.PROGRESSING):
        job["status"]["conditions"].append(condition(kind, "False", Reason.FINISHED, "All tasks are done."))
    said = [kind for kind, _, _ in words.conditions(job)]
    assert "Complete" in said
    assert not {"WorkersReady", "Progressing"} & set(said)


def test_a_message_that_is_missing_is_the_user_guides_line() -> None:
    job = ended(Phase.FAILED)
    job["status"]["conditions"][0] |= {"reason": "InvalidSpec", "message": ""}
    assert "A field is wrong; the message names it" in words.conditions(job)[0][2]


def test_the_diagnosis_begins_with_who_is_not_fine() -> None:
    text = drawn(show.diagnosis(running(), [], NOW))
    assert text.index("trainworker-edge-1") < text.index("trainworker-edge-0")
    assert "WorkerDisconnected: no sign of life since 11:58" in text
    assert "2 desired, 2 running, 1 connected, 1 disconnected, 0 failed" in text
    assert "97.1%" in text
    assert "93.1%" in text
    assert "none" in text.rpartition("Events")[2]


def test_the_last_events_are_shown_oldest_first() -> None:
    events = [
        {
            "metadata": {"name": f"e{number}"},
            "type": "Warning",
            "reason": f"Reason{number:02d}",
            "message": "m",
            "lastTimestamp": f"2026-01-02T11:{number:02d}:00Z",
        }
        for number in range(15)
    ]
    text = drawn(show.diagnosis(running(), events[::-1], NOW))
    assert "Reason04" not in text
    assert text.index("Reason05") < text.index("Reason14")
    assert "46m" in text


def test_events_that_may_not_be_read_are_no_reason_to_fail() -> None:
    assert "may not be read with these rights" in drawn(show.diagnosis(running(), None, NOW))


def test_jobs_are_a_table() -> None:
    text = drawn(show.jobs_table([running(), ended()], NOW, everywhere=True))
    head, first, second = text.splitlines()
    names = "NAMESPACE NAME PHASE DONE TASK ROUND ACCURACY FORGETTING WORKERS LEFT AGE"
    assert " ".join(head.split()) == names
    assert " ".join(first.split()) == "lab digits Running 48% 3/5 13/25 93.1% 4.2% 1/2 3m -"
    assert second.split()[:4] == ["lab", "digits", "Succeeded", "100%"]


def test_a_terminal_obeys_nothing_that_a_pod_has_written() -> None:
    evil = "gone\x1b[2J\x1b]0;owned\x07 [bold]not markup[/bold]\r\n"
    job = running(message=evil, reason="Training")
    job["status"]["workerStatuses"][1]["message"] = evil
    text = drawn(show.diagnosis(job, [], NOW))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]not markup[/bold]" in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_text_can_be_shown(value: Any) -> None:
    assert all(letter.isprintable() or letter in "\n " for letter in words.printable(value))
    assert "\n" not in words.one_line(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (45.4, "45s"),
        (119, "119s"),
        (125, "2m"),
        (7199, "119m"),
        (12_000, "3h20m"),
        (400_000, "4d"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_name_may_say_its_namespace() -> None:
    assert key_of("digits", "lab") == ("lab", "digits")
    assert key_of("other/digits", "lab") == ("other", "digits")
    assert key_of("fij/digits", "lab") == ("lab", "digits")
