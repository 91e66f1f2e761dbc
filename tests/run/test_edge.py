from __future__ import annotations

import errno

import pytest

from engram.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    EngramError,
    FederationError,
    NumericalError,
    RefusedError,
    RetryError,
)
from engram.run.edge import INTERRUPTED, message_in, reason_of, report, translate


@pytest.mark.parametrize(
    ("error", "typed", "pod"),
    [
        (ConfigurationError("x"), 42, 42),
        (NumericalError("x"), 42, 42),
        (DataError("x"), 42, 43),
        (CheckpointError("x"), 42, 42),
        (RefusedError("x"), 1, 44),
        (RetryError("x"), 75, 75),
        (FederationError("x"), 1, 1),
        (ValueError("x"), 1, 1),
        (MemoryError(), 42, 42),
        (OSError(errno.ENOSPC, "No space left on device", "/disk/file"), 42, 42),
        (OSError(errno.EROFS, "Read-only file system", "/cdrom/runs"), 42, 42),
        (KeyboardInterrupt(), INTERRUPTED, INTERRUPTED),
    ],
)
def test_exit_codes(
    error: BaseException,
    typed: int,
    pod: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engram.run.edge._keep_traceback", lambda error: "here.log")
    assert report(error, typed=typed > 0) == typed
    assert report(error, typed=False) == pod
    assert "Traceback" not in capsys.readouterr().err.partition("engram: unexpected")[0] or pod == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigurationError("x"), "ConfigurationError"),
        (NumericalError("x"), "NumericalError"),
        (DataError("x"), "DataError"),
        (CheckpointError("x"), "CheckpointFailed"),
        (OSError(errno.ENOSPC, "No space left on device", "/disk/file"), "CheckpointFailed"),
        (MemoryError(), "OutOfMemory"),
        (RuntimeError("CUDA error: out of memory"), "OutOfMemory"),
        (RefusedError("x"), "WorkerRefused"),
        (RetryError("x"), ""),
        (FederationError("x"), ""),
        (ValueError("x"), ""),
        (KeyboardInterrupt(), ""),
    ],
)
def test_the_reason_that_a_process_leaves(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_an_error_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    report(ConfigurationError("is 9", field="spec.tasks", file="job.yaml", remedy="write 5"), typed=True)
    assert capsys.readouterr().err == "engram: error: job.yaml: spec.tasks: is 9: write 5\n"


def test_an_unexpected_error_says_where_its_traceback_is(
    capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report(ValueError("odd"), typed=True)
    line = capsys.readouterr().err
    assert line.startswith("engram: unexpected error: ValueError: odd (traceback: ")
    path = line.partition("traceback: ")[2].rstrip(")\n")
    with open(path) as file:
        assert "ValueError: odd" in file.read()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_out_of_memory_says_what_to_lower(error: BaseException) -> None:
    assert "lower training.batchSize" in str(translate(error))


def test_a_missing_extra_says_how_to_get_it() -> None:
    found = translate(ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.pyplot"))
    assert str(found) == "matplotlib is not installed: pip install 'engram[report]'"


def test_a_full_disk_names_the_file() -> None:
    found = translate(OSError(errno.ENOSPC, "No space left on device", "/disk/file"))
    assert isinstance(found, CheckpointError)
    assert str(found).startswith("/disk/file: the disk is full")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "x"), RuntimeError("odd")])
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    assert translate(error) is error


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ("", False)),
        ("round 1/5\n", ("", False)),
        ("x\nengram: error: job.yaml: bad\n", ("job.yaml: bad", True)),
        ("engram: unexpected error: ValueError: odd\n", ("ValueError: odd", False)),
        ("engram: unexpected error: a\nengram: error: b\n  line 2\n", ("b\n  line 2", True)),
    ],
)
def test_last_words_are_found_in_a_log(log: str, expected: tuple[str, bool]) -> None:
    assert message_in(log) == expected


def test_what_report_writes_is_what_message_in_reads(capsys: pytest.CaptureFixture[str]) -> None:
    error: EngramError = DataError("train-images: truncated")
    report(error, typed=False)
    assert message_in(capsys.readouterr().err) == (str(error), True)
