"""The report of a job, fetched: what is written, and every way in which there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engram.errors import ConfigurationError, EngramError
from engram.spec.compact import CompactReport
from engram.spec.names import Condition, Phase, Reason
from engram_kubectl.connection import Target
from engram_kubectl.errors import NothingThereError, NotYetError
from engram_kubectl.reports import report, write
from engram_operator.model import Object
from tests.control.api_server import serving
from tests.control.builders import job_object
from tests.control.edge import run
from tests.kubectl.jobs import (
    REPORT,
    condition,
    config_map,
    ended,
    kubeconfig,
    running,
    stored_report,
)


def fetch(folder: Path, *objects: Object, name: str = "digits") -> int:
    """Run `kubectl engram report` on a server that has these objects; return its exit code."""

    async def scenario() -> int:
        async with serving() as server:
            for item in objects:
                await server.put(item)
            target = Target(str(kubeconfig(folder, server.url)))
            return await report(target, name, folder / "out")

    return run(scenario())


def finished(**report_status: str) -> Object:
    status = {"configMap": "digits-report", "digest": CompactReport(REPORT).digest, **report_status}
    return ended(ready=stored_report(), report=status)


def test_a_report_becomes_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = config_map({"job.yaml": "kind: FederatedIncrementalJob\n", "digest": "x"}, "digits-spec")
    job = finished(location="lab-digits-11111111")
    assert fetch(tmp_path, job, config_map(REPORT), spec) == 0
    out = tmp_path / "out"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        **REPORT,
        "job.yaml": "kind: FederatedIncrementalJob\n",
    }
    assert capsys.readouterr().out.splitlines() == [
        f"report: {out}/report.html",
        "files: job.yaml, report.html, report.json, report.md",
        "only in spec.report.volume, at lab-digits-11111111: figures/*.png and record.json",
        "operator: The report is in ConfigMap digits-report.",
    ]


def test_without_a_volume_it_says_what_was_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, finished(), config_map(REPORT)) == 0
    assert "not kept, for want of a spec.report.volume that takes them: figures/*.png and record.json" in (
        capsys.readouterr().out
    )


def test_a_report_that_somebody_has_changed_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, finished(), config_map({**REPORT, "report.json": "{1}"})) == 0
    assert "note: somebody has changed ConfigMap digits-report" in capsys.readouterr().out


PENDING = condition(Condition.REPORT_READY, "False", Reason.REPORT_PENDING, "the pod has no node")
LOST = condition(Condition.REPORT_READY, "False", Reason.REPORT_FAILED, "the record was lost.")


@pytest.mark.parametrize(
    ("objects", "kind", "says"),
    [
        ([running()], NotYetError, "lab/digits is Running (task 3/5  round 13/25"),
        ([running()], NotYetError, "wait for it: kubectl engram wait lab/digits --for ReportReady"),
        ([ended(ready=PENDING)], NotYetError, "is being made (the pod has no node): wait for it"),
        ([ended(ready=LOST)], NothingThereError, "lab/digits has no report: the record was lost."),
        ([ended(Phase.FAILED)], NothingThereError, "lab/digits has no report: RunFailed"),
        ([job_object()], NotYetError, "no operator has looked at this job"),
        (
            [finished()],
            NothingThereError,
            "somebody has deleted or emptied ConfigMap digits-report: run the job",
        ),
        (
            [finished(location="x"), config_map({})],
            NothingThereError,
            "whole report is in spec.report.volume at x",
        ),
        ([], ConfigurationError, "there is no job digits in namespace lab of context lab"),
        ([], ConfigurationError, "name another namespace with --namespace, or apply the job"),
    ],
)
def test_no_report_is_one_sentence_with_what_to_do(
    tmp_path: Path, objects: list[Object], kind: type[EngramError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        fetch(tmp_path, *objects)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_wrong_name_is_told_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no job digit in namespace lab .*: this namespace has digits"
    ):
        fetch(tmp_path, running(), name="digit")


@pytest.mark.parametrize("name", ["", "a/b/c", "../digits", "Digits", "a b"])
def test_what_is_no_name_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="names no job: write NAME or NAMESPACE/NAME"):
        fetch(tmp_path, name=name)


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/record.json").write_text("{}")
    with pytest.raises(
        ConfigurationError, match=r"^--out: .*out already holds a run: name an empty or a new"
    ):
        write(REPORT, tmp_path / "out", "digits")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["record.json"]


def test_an_empty_directory_is_filled_and_a_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert write(REPORT, Path("empty"), "digits") == Path("empty")
    assert write(REPORT, None, "digits") == Path("runs/digits")
    assert write(REPORT, None, "digits") == Path("runs/digits-2")
    assert json.loads((tmp_path / "runs/digits-2/report.json").read_text()) == {}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot write"):
        write(REPORT, tmp_path / "out", "digits")


def test_a_file_where_the_directory_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file is a file: name a directory"):
        write(REPORT, tmp_path / "file", "digits")
    with pytest.raises(ConfigurationError, match=r"cannot write .*: name a directory that can be written"):
        write(REPORT, tmp_path / "file/below", "digits")
