"""The leaderboard in a report on a cluster: who is on it, who is not and why, and that nothing breaks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engram.report.document import build_document
from engram.report.peers import compare_with
from engram.report.record import Record
from tests.report.conftest import build_record

OWN = "digits-replay"


def peer(folder: Path, name: str, record: Record | None = None, **changes: Any) -> Path:
    """The mounted report of another job; without a record its directory is not there."""
    path = folder / name
    if record is not None:
        path.mkdir()
        document = {**build_document(record), **changes}
        (path / "report.json").write_text(json.dumps(document))
    return path


def test_other_jobs_stand_on_one_leaderboard(tmp_path: Path) -> None:
    others = [
        peer(tmp_path, name, build_record(name.partition("-")[0])) for name in ("finetune-a", "icarl-b")
    ]
    found = compare_with(build_record("replay"), OWN, others)
    assert found.notes == ()
    assert set(found.files) == {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.html"}
    rows = json.loads(found.files["leaderboard.json"])["rows"]
    assert [row["runs"] for row in rows] == [["icarl-b"], [OWN], ["finetune-a"]]
    assert "icarl-b" in found.files["leaderboard.html"]
    assert "<a href" not in found.files["leaderboard.html"]


def test_who_is_not_on_it_is_said_and_why(tmp_path: Path) -> None:
    other_data = build_record("finetune")
    other_data.dataset.sha256 = "f" * 64
    others = [
        peer(tmp_path, "missing"),
        peer(tmp_path, "failed", build_record("finetune").model_copy(update={"status": "failed"})),
        peer(tmp_path, "other-data", other_data),
        peer(tmp_path, "newer", build_record("finetune"), schema="engram.report/v9"),
        peer(tmp_path, "icarl", build_record("icarl")),
    ]
    found = compare_with(build_record("replay"), OWN, others)
    assert len(json.loads(found.files["leaderboard.json"])["rows"]) == 2
    missing, failed, data, newer = found.notes
    assert missing == "missing is not on the leaderboard: it has no report yet, or there is no such job."
    assert failed == "failed is not on the leaderboard: it is failed."
    assert data.startswith(
        "other-data is not on the leaderboard: it differs in the content of data set digits"
    )
    assert newer == "newer is not on the leaderboard: its report is no report of the schema engram.report/v1."


@pytest.mark.parametrize(
    "setting",
    [{"job": {"spec": {"algorithm": 1}}}, {"job": {"spec": []}}, {"job": {"spec": {"seed": "x"}}}],
)
def test_a_report_that_contradicts_itself_costs_its_own_place_only(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    record = build_record("finetune")
    document = build_document(record)
    broken = peer(tmp_path, "broken", record, setting={**document["setting"], **setting})
    found = compare_with(
        build_record("replay"), OWN, [broken, peer(tmp_path, "icarl", build_record("icarl"))]
    )
    assert [row["runs"] for row in json.loads(found.files["leaderboard.json"])["rows"]] == [["icarl"], [OWN]]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("broken is not on the leaderboard: it")


def test_alone_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert compare_with(build_record("replay"), OWN, []).files == {}
    assert compare_with(build_record("replay"), OWN, [peer(tmp_path, "missing")]).files == {}


def test_a_run_that_is_not_complete_has_no_leaderboard(tmp_path: Path) -> None:
    record = build_record("replay").model_copy(update={"status": "failed"})
    found = compare_with(record, OWN, [peer(tmp_path, "icarl", build_record("icarl"))])
    assert (found.files, found.notes) == ({}, ("No leaderboard: this run is failed.",))
