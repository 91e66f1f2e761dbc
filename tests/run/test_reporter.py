"""`engram reporter` as the report pod runs it: from a record to a directory on a volume and a log's end."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.errors import CheckpointError, ConfigurationError, DataError, EngramError
from engram.report.document import build_document
from engram.report.record import Record
from engram.report.render import report_texts, write_report
from engram.run.prometheus import Server
from engram.run.reporter import (
    ReporterOptions,
    compact_texts,
    directory_name,
    keep,
    not_kept,
    run_reporter,
)
from engram.spec.compact import MOST_TEXT, CompactReport, pack, unpack
from engram.spec.loader import load_job
from tests.report.conftest import build_record
from tests.run.pods import UID, wait_until

NAME = "lab-digits-replay-11111111"
Start = Callable[..., Any]


@pytest.fixture
def record() -> Record:
    found = build_record()
    found.job["metadata"] |= {"namespace": "lab", "uid": UID}
    return found


@pytest.fixture
def folder(tmp_path: Path, record: Record) -> Path:
    """Return what the pod finds mounted: `job.yaml`, and a checkpoint's directory with the record."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(record.job))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/record.json").write_text(record.model_dump_json(by_alias=True))
    return tmp_path


def options(folder: Path, out: Path | None = None) -> ReporterOptions:
    return ReporterOptions(folder / "job.yaml", (str(folder / "checkpoint"),), out, 0.0)


def test_without_a_volume_the_log_has_the_report(
    folder: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_reporter(options(folder)) == 0
    log = capsys.readouterr().out
    assert log.startswith(f"record: {folder}/checkpoint/record.json (complete, 5 of 5 tasks)\n")
    assert log.endswith(pack(CompactReport(report_texts(build_document(record)))))
    found = unpack(log)
    assert found is not None
    assert list(found.files) == ["report.json", "report.md", "leaderboard.csv", "matrix.json", "report.html"]
    assert (found.location, found.notes) == ("", ())
    assert "figures/" not in found.files["report.md"]


def test_a_volume_gets_a_run_directory_that_can_be_compared(
    folder: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = folder / "volume"
    volume.mkdir()
    (volume / NAME).mkdir()
    (volume / NAME / "of-an-earlier-try").touch()
    (volume / f".{NAME}.partial").mkdir()
    (volume / f".{NAME}.partial" / "half").touch()
    assert run_reporter(options(folder, volume)) == 0
    found = unpack(capsys.readouterr().out)
    assert found is not None
    assert (found.location, found.notes) == (NAME, ())
    assert [path.name for path in volume.iterdir()] == [NAME]
    local = write_report(folder / "local", record).parent
    of_a_run = {"job.yaml", "record.json"}
    assert {path.name for path in (volume / NAME).iterdir()} == of_a_run | {
        path.name for path in local.iterdir()
    }
    for name in ("report.json", "report.md", "leaderboard.csv", "matrix.json", "report.html"):
        assert (volume / NAME / name).read_text() == (local / name).read_text()
    assert load_job(volume / NAME / "job.yaml").metadata.uid == UID
    assert Record.model_validate_json((volume / NAME / "record.json").read_text()) == record


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "digits", "namespace": "lab", "uid": UID}, "lab-digits-11111111"),
        ({"name": "digits"}, "default-digits"),
        ({"name": "digits", "namespace": "../..", "uid": "a/b"}, "------digits-a-b"),
    ],
)
def test_jobs_that_share_a_volume_have_directories_of_their_own(
    folder: Path, record: Record, metadata: dict[str, str], name: str
) -> None:
    (folder / "job.yaml").write_text(yaml.safe_dump({**record.job, "metadata": metadata}))
    assert directory_name(load_job(folder / "job.yaml")) == name


def test_a_report_of_very_many_workers_still_fits() -> None:
    document = build_document(build_record())
    document["workers"] = [dict(document["workers"][0], name=f"w-{n}") for n in range(1500)]
    assert CompactReport(report_texts(document)).size > MOST_TEXT
    found = unpack(pack(CompactReport(compact_texts(document))))
    assert found is not None
    assert found.notes == ()
    assert json.loads(found.files["report.json"]) == document


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left"), "spec.report.volume is full: make room on it."),
        (OSError(errno.EDQUOT, "Quota"), "the quota of spec.report.volume is used up: make room on it."),
        (OSError(errno.EROFS, "Read-only"), "spec.report.volume is read-only: give one that can be written."),
        (PermissionError(errno.EACCES, "no"), f"user {os.getuid()} may not write to spec.report.volume"),
        (PermissionError(errno.EPERM, "no"), f"user {os.getuid()} may not write to spec.report.volume"),
        (OSError(errno.EIO, "Input/output error", "/report/x"), "Input/output error: '/report/x'"),
        (CheckpointError("a disk"), "a disk"),
        (ConfigurationError("the figures need matplotlib"), "the figures need matplotlib"),
    ],
)
def test_why_a_volume_took_nothing_is_one_sentence(error: OSError | EngramError, says: str) -> None:
    said = not_kept(error)
    assert said.startswith("The full report was not kept: ")
    assert says in said


def test_a_failed_try_leaves_the_volume_as_it_was(tmp_path: Path, record: Record) -> None:
    keep(tmp_path, NAME, record)
    before = (tmp_path / NAME / "report.json").read_text()
    record.job["metadata"]["name"] = "other"
    record.classes = []  # no report can be made of it
    with pytest.raises(LookupError):
        keep(tmp_path, NAME, record)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME / "report.json").read_text() == before


@pytest.mark.parametrize("change", [{"classes": []}, {"job": {"spec": 1}}])
def test_a_record_that_contradicts_itself_is_broken(
    folder: Path, record: Record, change: dict[str, Any]
) -> None:
    record = record.model_copy(update=change)
    (folder / "checkpoint/record.json").write_text(record.model_dump_json(by_alias=True))
    with pytest.raises(DataError, match=r"contradicts itself: .*record\.json") as caught:
        run_reporter(options(folder))
    assert caught.value.exit_code == 43


@pytest.fixture
def pod(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a pod's environment, with a home that cannot be written; return the file of its last word."""
    last_word = folder / "termination"
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": "/proc/nowhere",
        "ENGRAM_JOB_FILE": str(folder / "job.yaml"),
        "ENGRAM_REPORT_DIR": "",
        "ENGRAM_TERMINATION_LOG": str(last_word),
    }.items():
        monkeypatch.setenv(name, value)
    return last_word


@pytest.mark.process
def test_nothing_but_the_report_is_said(
    engram: Start, folder: Path, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGRAM_REPORT_DIR", str(folder / "volume"))
    command = engram("reporter", "--record", "http://127.0.0.1:1/v1/record", "--record", "checkpoint")
    assert command.end() == 0, command.errors
    assert command.errors == ""
    assert command.lines[:2] == [
        "record: checkpoint/record.json (complete, 5 of 5 tasks)",
        f"report: {NAME} in spec.report.volume",
    ]
    found = unpack("\n".join(command.lines))
    assert found is not None
    assert found.location == NAME
    assert (folder / "volume" / NAME / "figures/accuracy_matrix.png").stat().st_size > 5000
    assert pod.read_text() == "done"


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.process
def test_a_volume_that_takes_nothing_costs_the_pictures_only(
    engram: Start, folder: Path, pod: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    volume = folder / "volume"
    monkeypatch.setenv("ENGRAM_REPORT_DIR", str(volume) if how == "full" else "/proc/engram")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

    command = engram("reporter", "--record", "checkpoint", before=limit if how == "full" else None)
    assert command.end() == 0, command.errors
    found = unpack("\n".join(command.lines))
    assert found is not None
    assert "report.html" in found.files
    assert found.location == ""
    (note,) = found.notes
    assert note.startswith("The full report was not kept: ")
    assert note in command.lines
    assert not volume.exists() or list(volume.iterdir()) == []
    assert pod.read_text() == "done"
    assert command.errors == ""


@pytest.mark.process
def test_no_record_and_wrong_options_are_one_sentence(engram: Start, folder: Path, pod: Path) -> None:
    nothing = engram("reporter", "--record", "http://127.0.0.1:1/v1/record", "--deadline", "0.5")
    assert nothing.end() == 43
    reason, _, sentence = pod.read_text().partition(": ")
    assert (reason, sentence) == (
        "DataError",
        "there is no record of the run to report: http://127.0.0.1:1/v1/record cannot be read "
        "(Connection refused): raise spec.report.graceSeconds, or give spec.aggregator.checkpoint.volume, "
        "where it is kept",
    )
    assert nothing.errors == f"engram: error: {sentence}\n"
    (folder / "checkpoint/record.json").write_text("{}")
    broken = engram("reporter", "--record", "checkpoint")
    assert broken.end() == 43
    assert "checkpoint/record.json is no record that engram" in pod.read_text()
    assert engram("reporter").end() == 42
    assert "--record" in pod.read_text()
    assert engram("reporter", "--record", "ftp://a/b").end() == 42
    assert "write http://HOST:PORT/v1/record" in pod.read_text()


@pytest.mark.process
def test_sigterm_ends_it_with_75_at_any_time(engram: Start, folder: Path, pod: Path) -> None:
    waiting = engram("reporter", "--record", "http://127.0.0.1:1/v1/record", "--deadline", "3600")
    maps = Path(f"/proc/{waiting.process.pid}/maps")
    wait_until(lambda: "pydantic_core" in maps.read_text())
    waiting.signal(signal.SIGTERM)
    assert waiting.end() == 75
    assert pod.read_text().startswith("told to stop: it starts again")


@pytest.mark.process
def test_it_loads_no_torch(engram: Start, folder: Path, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_REPORT_DIR", str(folder / "volume"))
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    command = engram("reporter", "--record", "checkpoint")
    assert command.end() == 0, command.errors


def test_other_jobs_and_prometheus_are_in_the_report_and_what_fails_is_a_note(
    folder: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder / "peers/icarl"
    other.mkdir(parents=True)
    (other / "report.json").write_text(json.dumps(build_document(build_record("icarl"))))
    wanted = ReporterOptions(
        folder / "job.yaml",
        (str(folder / "checkpoint"),),
        folder / "volume",
        0.0,
        peers=(other, folder / "peers/missing"),
        prometheus=Server("http://127.0.0.1:1"),
    )
    assert run_reporter(wanted) == 0
    found = unpack(capsys.readouterr().out)
    assert found is not None
    assert found.notes == (
        "Prometheus at http://127.0.0.1:1 cannot be reached (Connection refused): the report is made of the "
        "run's record alone.",
        "missing is not on the leaderboard: it has no report yet, or there is no such job.",
    )
    document = json.loads(found.files["report.json"])
    assert document["notes"][-1] == found.notes[0]
    assert {**document, "notes": document["notes"][:-1]} == json.loads(json.dumps(build_document(record)))
    assert found.files["leaderboard.csv"].count("\n") == 3
    rows = json.loads(found.files["leaderboard.json"])["rows"]
    assert [row["runs"] for row in rows] == [["icarl"], ["digits-replay"]]
    kept = folder / "volume" / found.location
    for name in ("report.json", "leaderboard.csv", "leaderboard.html", "leaderboard.md"):
        assert (kept / name).read_text() == found.files[name], name
