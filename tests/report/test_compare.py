from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.metrics.matrix import from_history
from engram.metrics.measures import measure
from engram.report.compare import comparable_runs, compare, load_record, render_leaderboard_text
from engram.report.leaderboard import Statistic
from engram.report.record import Record
from engram.report.render import write_report

MakeRun = Callable[..., Path]


@pytest.fixture
def grid(make_run: MakeRun) -> list[Path]:
    """Three algorithms on three seeds each."""
    return [
        make_run(f"{algorithm}-{seed}", algorithm=algorithm, seed=seed, faults=False)
        for algorithm in ("finetune", "replay", "icarl")
        for seed in (0, 1, 2)
    ]


def final_accuracy(run: Path) -> float:
    record = load_record(run)
    value: float = measure(from_history(record.classes, record.history))["accuracy"]
    return value


def change(run: Path, edit: Callable[[Record], None]) -> Path:
    record = load_record(run)
    edit(record)
    (run / "record.json").write_text(record.model_dump_json(by_alias=True))
    return run


def test_seeds_become_one_row_with_mean_standard_error_and_n(grid: list[Path], tmp_path: Path) -> None:
    board = compare(grid, tmp_path / "out")
    assert [row.settings["algorithm.name"] for row in board.rows] == ["icarl", "replay", "finetune"]
    values = [final_accuracy(run) for run in grid[6:]]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    first = board.rows[0]
    assert first.seeds == (0, 1, 2)
    assert first.values["accuracy"].mean == pytest.approx(mean)
    assert first.values["accuracy"].error == pytest.approx(deviation / math.sqrt(3))
    assert first.values["accuracy"].n == 3
    assert board.notes == ()


def test_differences_to_the_first_row_are_paired_by_seed(grid: list[Path], tmp_path: Path) -> None:
    board = compare(grid, tmp_path / "out")
    pairs = [final_accuracy(grid[3 + seed]) - final_accuracy(grid[6 + seed]) for seed in (0, 1, 2)]
    found = board.rows[1].differences["accuracy"]
    assert found.mean == pytest.approx(sum(pairs) / 3)
    assert found.error == Statistic.of(pairs).error
    assert board.rows[0].differences == {}


def test_pairs_use_shared_seeds_only_and_a_note_says_so(grid: list[Path], tmp_path: Path) -> None:
    board = compare([*grid[3:5], *grid[7:]], tmp_path / "out")
    assert [row.seeds for row in board.rows] == [(1, 2), (0, 1)]
    assert board.rows[1].differences["accuracy"].n == 1
    assert board.rows[1].differences["accuracy"].error is None
    assert "same seeds" in board.notes[0]


def test_files_hold_the_same_leaderboard(grid: list[Path], tmp_path: Path) -> None:
    board = compare(grid, tmp_path / "out", "forget_rate")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "leaderboard.json",
        "leaderboard.csv",
        "leaderboard.md",
        "report.html",
    }
    document = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert document["schema"] == "engram.leaderboard/v1"
    assert document["rank"] == [{"metric": "forget_rate", "direction": "ascend"}]
    with (tmp_path / "out" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["algorithm.name"] for row in rows] == ["icarl", "replay", "finetune"]
    for row, written, kept in zip(rows, document["rows"], board.rows, strict=True):
        assert float(row["accuracy"]) == written["values"]["accuracy"]["mean"] == kept.values["accuracy"].mean
        assert row["seeds"] == "0 1 2"
    assert "| 1 | icarl | 3 |" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_columns_are_the_paths_that_vary(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run(
            f"r{budget}-{seed}",
            seed=seed,
            faults=False,
            spec={"algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": budget}}},
        )
        for budget in (10, 50)
        for seed in (0, 1)
    ]
    board = compare(runs, tmp_path / "out")
    assert board.paths == ("algorithm.name", "dataset.name", "algorithm.parameters.exemplarsPerWorker")
    assert board.shown_paths == ("algorithm.name", "algorithm.parameters.exemplarsPerWorker")
    assert {row.label for row in board.rows} == {
        "replay, exemplarsPerWorker 10",
        "replay, exemplarsPerWorker 50",
    }
    assert "exemplarsPerWorker" in render_leaderboard_text(board, 200)


def test_parameters_that_only_follow_the_algorithm_make_no_column(make_run: MakeRun, tmp_path: Path) -> None:
    icarl = {"algorithm": {"name": "icarl", "parameters": {"exemplarsPerWorker": 50}}}
    runs = [make_run("a", algorithm="finetune"), make_run("b", algorithm="icarl", spec=icarl)]
    board = compare(runs, tmp_path / "out")
    assert board.shown_paths == ("algorithm.name",)
    assert [row.label for row in board.rows] == ["icarl", "finetune"]
    few = {"algorithm": {"name": "icarl", "parameters": {"exemplarsPerWorker": 5}}}
    board = compare([*runs, make_run("c", algorithm="icarl", spec=few)], tmp_path / "out")
    assert {row.label for row in board.rows} == {
        "finetune",
        "icarl, exemplarsPerWorker 5",
        "icarl, exemplarsPerWorker 50",
    }


def test_runs_of_different_versions_are_noted(make_run: MakeRun, tmp_path: Path) -> None:
    def older(record: Record) -> None:
        record.environment.torch = "2.3.0"

    board = compare([make_run("a"), change(make_run("b", seed=1), older)], tmp_path / "out")
    assert board.notes == (
        "The runs were made with different versions: engram 0.1.0 with torch 2.13.0; engram 0.1.0 with torch "
        "2.3.0.",
    )


def test_what_decides_no_result_makes_no_row(make_run: MakeRun, tmp_path: Path) -> None:
    quiet = {
        "report": {"graceSeconds": 5},
        "aggregator": {"placement": "any"},
        "runPolicy": {"backoffLimit": 1},
    }
    runs = [make_run("a", seed=0), make_run("b", seed=1, spec=quiet)]
    (row,) = compare(runs, tmp_path / "out").rows
    assert row.seeds == (0, 1)


def test_a_repeated_run_is_counted_once_and_checked(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b"), make_run("c", seed=1)]
    board = compare([*runs, runs[0]], tmp_path / "out")
    assert board.rows[0].seeds == (0, 1)
    (note,) = board.notes
    assert "repeats" in note
    assert "with the same accuracy matrix" in note

    def worse(record: Record) -> None:
        record.history.tasks[-1].counts.right[2] = 0

    change(runs[1], worse)
    assert "ANOTHER ACCURACY MATRIX" in compare(runs, tmp_path / "out").notes[0]


def other_data(record: Record) -> None:
    record.dataset.sha256, record.dataset.name = "f" * 64, "mnist"


REFUSALS: dict[str, tuple[dict[str, Any], Callable[[Record], None] | None, str]] = {
    "label ratio": (
        {"spec": {"dataset": {"labelRatio": 0.1}}},
        None,
        r"spec.dataset.labelRatio \(0.5 and 0.1\)",
    ),
    "partition": (
        {"spec": {"dataset": {"labelRatio": 0.5, "partition": {"method": "iid"}}}},
        None,
        r"spec.dataset.partition.method \(dirichlet and iid\)",
    ),
    "tasks": ({"tasks": 2}, None, r"spec.tasks.count \(5 and 2\)"),
    "workers": (
        {"spec": {"workers": [{"name": "edge", "replicas": 4}, {"name": "gpu", "replicas": 2}]}},
        None,
        r"spec.workers\[edge\].replicas \(3 and 4\)",
    ),
    "group's label ratio": (
        {
            "spec": {
                "workers": [
                    {"name": "edge", "replicas": 3, "dataset": {"labelRatio": 0.0}},
                    {"name": "gpu", "replicas": 2},
                ]
            }
        },
        None,
        r"spec.workers\[edge\].dataset.labelRatio \(not set and 0.0\)",
    ),
    "content of the data": (
        {},
        lambda record: setattr(record.dataset, "sha256", "f" * 64),
        "the content of data set digits",
    ),
    "another data set": (
        {},
        other_data,
        r"the data set \(digits and mnist\)",
    ),
    "split of the same seed": (
        {"seed": 0},
        lambda record: setattr(record.split, "digest", "e" * 64),
        "the split digest at equal seed 0",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_runs_on_other_data_or_splits_are_refused(make_run: MakeRun, tmp_path: Path, case: str) -> None:
    arguments, edit, problem = REFUSALS[case]
    first, second = make_run("first"), make_run("second", **{"algorithm": "icarl", "seed": 1} | arguments)
    if edit is not None:
        change(second, edit)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        compare([first, second], tmp_path / "out")
    assert caught.value.exit_code == 42
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert comparable_runs([first, second]) == [[first], [second]]


def test_seeds_explain_different_splits(grid: list[Path]) -> None:
    assert comparable_runs(grid) == [grid]


def test_joint_upfront_ranks_with_the_others(make_run: MakeRun, tmp_path: Path) -> None:
    joint = make_run(
        "joint",
        algorithm="joint",
        joint_upfront=True,
        spec={"algorithm": {"name": "joint", "parameters": {"upfront": True}}},
    )
    board = compare([make_run("replay"), joint], tmp_path / "out", "forget_rate,accuracy")
    assert [row.settings["algorithm.name"] for row in board.rows] == ["replay", "joint"]
    assert board.rows[1].values["forget_rate"] == Statistic(None, None, 0)
    assert "\N{EN DASH}" in (tmp_path / "out" / "report.html").read_text()


def test_joint_upfront_has_no_intransigence_beside_a_joint_run(make_run: MakeRun, tmp_path: Path) -> None:
    upfront = make_run(
        "upfront",
        algorithm="joint",
        joint_upfront=True,
        spec={"algorithm": {"name": "joint", "parameters": {"upfront": True}}},
    )
    board = compare([make_run("joint", algorithm="joint"), upfront, make_run("replay")], tmp_path / "out")
    found = {row.label: row.values["intransigence"].n for row in board.rows}
    assert sorted(found.values()) == [0, 0, 1], found


def test_a_joint_run_of_the_same_seed_gives_intransigence(make_run: MakeRun, tmp_path: Path) -> None:
    joint, alone = make_run("joint", algorithm="joint"), make_run("alone", algorithm="icarl", seed=1)
    replay = make_run("replay")
    board = compare([replay, alone, joint], tmp_path / "out", "intransigence")
    found = {row.settings["algorithm.name"]: row.values["intransigence"] for row in board.rows}

    def newest(run: Path) -> list[float]:
        record = load_record(run)
        values: list[float] = measure(from_history(record.classes, record.history))[
            "newest_task_accuracy_by_task"
        ]
        return values

    gaps = [best - own for best, own in zip(newest(joint), newest(replay), strict=True)]
    assert found["replay"].mean == pytest.approx(sum(gaps) / 5)
    assert found["joint"].n == 0
    assert found["icarl"].n == 0  # another seed, so another split


def test_unfinished_runs_are_named_and_not_ranked(make_run: MakeRun, tmp_path: Path) -> None:
    cut = make_run("cut", finished=2, status="interrupted")
    board = compare([make_run("whole"), cut], tmp_path / "out")
    assert len(board.rows) == 1
    assert board.unfinished == ((str(cut), "interrupted"),)
    assert "interrupted" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert f"Not ranked: {cut} is interrupted." in render_leaderboard_text(board)
    with pytest.raises(ConfigurationError, match=r"no complete run to compare: .*cut is interrupted"):
        compare([cut], tmp_path / "none")
    with pytest.raises(ConfigurationError, match="no directory was given"):
        compare([], tmp_path / "none")


def test_an_unreadable_record_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"record\.json: cannot be read: No such file"):
        compare([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ConfigurationError, match="no record that this version of engram reads"):
        load_record(tmp_path)
    (tmp_path / "record.json").write_text('{"schema": "engram.record/v9"}')
    with pytest.raises(ConfigurationError, match=r"record\.json: schema: "):
        load_record(tmp_path)


def test_the_page_links_to_reports_that_exist(make_run: MakeRun, tmp_path: Path) -> None:
    with_report, without = make_run("with report", seed=0), make_run("without", seed=1)
    write_report(with_report, load_record(with_report))
    compare([with_report, without], tmp_path / "boards" / "one")
    page = (tmp_path / "boards" / "one" / "report.html").read_text()
    assert 'href="../../with%20report/report.html"' in page
    assert page.count("href=") == 2
    assert "<script" not in page


def test_names_are_escaped_in_the_page_and_in_markdown(make_run: MakeRun, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|"

    def rename(record: Record) -> None:
        record.job["spec"]["algorithm"]["name"] = evil
        record.dataset.name = evil

    runs = [change(make_run(f"evil-{seed}", seed=seed), rename) for seed in (0, 1)]
    compare(runs, tmp_path / "out")
    assert "<img" not in (tmp_path / "out" / "report.html").read_text()
    assert "\\<img src=x onerror=alert(1)\\>\\|" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_terminal_table_fits_its_width(grid: list[Path], tmp_path: Path) -> None:
    board = compare(grid, tmp_path / "out")
    for width in (60, 100, 240):
        text = render_leaderboard_text(board, width)
        assert max(map(len, text.splitlines())) <= width
        assert ("more in leaderboard.csv" in text) == (width < 200)
        assert "…" not in text
        assert "icarl" in text


def test_statistic_of_one_and_of_none() -> None:
    assert Statistic.of([0.5]) == Statistic(0.5, None, 1)
    assert Statistic.of([None, None]) == Statistic(None, None, 0)
    two = Statistic.of([None, 0.25, 0.75])
    assert (two.mean, two.n) == (0.5, 2)
    assert two.error == pytest.approx(0.25)
