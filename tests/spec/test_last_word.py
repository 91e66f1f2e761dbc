"""Errors, reasons and exit codes fit each other; a last word is read as it was written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram import errors
from engram.spec.exit_codes import ExitCode
from engram.spec.last_word import CODES, compose, read, reason_of
from engram.spec.names import Condition, Reason


def every_error(base: type[errors.EngramError] = errors.EngramError) -> Iterator[type[errors.EngramError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from every_error(kind)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_an_errors_reason_belongs_to_its_exit_code(kind: type[errors.EngramError]) -> None:
    if kind.reason:
        assert CODES[Reason(kind.reason)] == kind.exit_code
    else:
        assert kind.exit_code in (ExitCode.FAILURE, ExitCode.RETRY), "a code that says enough"


def test_every_reason_that_a_process_may_leave_has_its_error() -> None:
    assert {kind.reason for kind in every_error() if kind.reason} == set(CODES)


@pytest.mark.parametrize("reason", CODES)
def test_what_a_process_leaves_may_stand_in_degraded(reason: Reason) -> None:
    assert Condition.DEGRADED in reason.conditions
    if CODES[reason] not in (ExitCode.RETRY, ExitCode.REFUSED):
        assert Condition.FAILED in reason.conditions, "the aggregator's Job fails of it"


@given(st.sampled_from(sorted(CODES)), st.text())
def test_a_last_word_is_read_as_it_was_written(reason: Reason, sentence: str) -> None:
    line = compose(reason, sentence)
    assert "\n" not in line
    assert read(line, CODES[reason]) == (reason, " ".join(sentence.split()))


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("DataError: /data is empty", 43, (Reason.DATA_ERROR, "/data is empty")),
        ("DataError: No numeric types to aggregate", 1, (None, "DataError: No numeric types to aggregate")),
        ("ValueError: x", 1, (None, "ValueError: x")),
        ("spec.model.name: is wrong: write y", 42, (None, "spec.model.name: is wrong: write y")),
        ("OutOfMemory: out of memory", 42, (Reason.OUT_OF_MEMORY, "out of memory")),
        ("OutOfMemory", 42, (Reason.OUT_OF_MEMORY, "")),
        ("OutOfMemory", 137, (None, "OutOfMemory")),
        ("AReasonOfTheFuture: x", 42, (None, "AReasonOfTheFuture: x")),
        ("Training: x", 42, (None, "Training: x")),
        ("", 42, (None, "")),
    ],
)
def test_a_reason_counts_with_its_own_exit_code_only(
    line: str, code: int, expected: tuple[Reason | None, str]
) -> None:
    assert read(line, code) == expected


def test_a_sentence_without_a_reason_stays_as_it_is() -> None:
    assert compose("", "told to\nstop") == "told to stop"
    assert reason_of("", 1) is None
