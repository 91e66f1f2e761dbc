"""A run read back from report.json: the same measures and the same leaderboard as from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.federation.history import Counts, History, TaskRow
from engram.metrics.matrix import from_history
from engram.metrics.measures import measure
from engram.report.comparable import Run
from engram.report.compare import compare, is_fetched
from engram.report.document import build_document
from engram.report.leaderboard import build
from engram.report.rank import parse_rank
from engram.report.record import Record
from engram.report.render import report_texts
from engram.report.reread import record_of, reread
from tests.report.conftest import build_record

RANK = parse_rank("accuracy:descend,forget_rate:ascend")


def through_json(record: Record) -> Record:
    return record_of(json.loads(json.dumps(build_document(record))))


def measures(record: Record) -> dict[str, Any]:
    return measure(from_history(record.classes, record.history))


@pytest.mark.parametrize("algorithm", ["finetune", "replay", "icarl", "joint"])
def test_every_measure_is_the_same(algorithm: str) -> None:
    record = build_record(algorithm)
    assert measures(through_json(record)) == measures(record)


def test_a_leaderboard_is_the_same() -> None:
    records = [build_record(name, seed) for name in ("finetune", "replay", "joint") for seed in (0, 1)]
    runs = [Run(Path(str(number)), record) for number, record in enumerate(records)]
    again = [Run(run.path, through_json(run.record)) for run in runs]
    assert build(again, RANK).dump() == build(runs, RANK).dump()


@given(
    st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=3, max_size=3),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
)
def test_unseen_tasks_and_the_start_are_kept_too(rights: list[list[int]], initial: list[int]) -> None:
    record = build_record("replay")
    total = {0: 40, 1: 40, 2: 40}
    rows = [
        TaskRow(
            task=task,
            classes=[task - 1],
            started=0.0,
            seconds={},
            counts=Counts(
                right={label: rights[task - 1][label] for label in range(task)},
                total=total,
                right_unseen={label: rights[task - 1][label] for label in range(task, 3)},
            ),
            workers={},
        )
        for task in (1, 2, 3)
    ]
    start = Counts(right={}, total=total, right_unseen=dict(enumerate(initial)))
    changed = record.model_copy(
        update={"classes": [[0], [1], [2]], "history": History(tasks=rows, initial=start)}
    )
    changed.split.tasks = [[0], [1], [2]]
    changed.dataset.class_names = ["a", "b", "c"]
    document = json.loads(json.dumps(build_document(changed)))
    assert measures(record_of(document)) == measures(changed)


def test_directories_that_were_fetched_can_be_compared(tmp_path: Path) -> None:
    for name in ("finetune", "replay"):
        (tmp_path / name).mkdir()
        for file, text in report_texts(build_document(build_record(name))).items():
            (tmp_path / name / file).write_text(text)
    assert is_fetched(tmp_path / "replay")
    board = compare([tmp_path / "finetune", tmp_path / "replay"], tmp_path / "board")
    assert [row.settings["algorithm.name"] for row in board.rows] == ["replay", "finetune"]
    assert (tmp_path / "board/leaderboard.csv").read_text().count("\n") == 3
    assert "../replay/report.html" in (tmp_path / "board/report.html").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "is no report of the schema engram.report/v1"),
        ('{"schema": "engram.report/v9"}', "is no report of the schema"),
        ('{"schema": "engram.report/v1"}', "is no report that this version reads"),
    ],
)
def test_what_is_no_report_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConfigurationError, match=f"report.json: {says}"):
        reread(tmp_path)


def test_a_report_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"report.json: cannot be read: No such file"):
        reread(tmp_path)
