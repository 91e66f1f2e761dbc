"""The benchmark of algorithms as a command: what it runs, what it does not run again, what it refuses."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fcil import running
from benchmarks.fcil.cells import Cell, Key, cells_of
from benchmarks.fcil.command import main
from benchmarks.fcil.rows import Row, save
from benchmarks.fcil.running import Piece, pieces
from benchmarks.fcil.variants import RATIOS, VARIANTS, Variant, benchmark_called, chosen
from engram.run.grid import expand
from engram.run.source import load_mapping

ROOT = Path(__file__).parents[2]
FASHION, DIGITS = benchmark_called("fashion-fcil-20"), benchmark_called("digits")
REPLAY, ICARL, UPFRONT = chosen(["replay", "icarl", "joint upfront"])


class TestPieces:
    def test_what_is_missing_alike_is_one_grid_of_a_ratio_unless_it_takes_long(self) -> None:
        found = pieces(cells_of(FASHION, [REPLAY, ICARL], [0.05, 0.2], [0, 1]))
        assert [len(piece.cells) for piece in found] == [4, 4]
        many = [replace(REPLAY, name=f"replay {number}") for number in range(20)]
        assert [len(piece.cells) for piece in pieces(cells_of(FASHION, many, [0.2], range(5)))] == [
            40,
            40,
            20,
        ]

    def test_gaps_are_grids_of_their_own_and_so_are_other_settings(self) -> None:
        uniform = Variant("uniform", "replay", settings={"aggregation.weighting": "uniform"})
        cells = cells_of(FASHION, [REPLAY, ICARL, uniform], [0.05, 0.2], [0, 1])
        cells.remove(Cell(FASHION, ICARL, 0.2, 1))
        found = pieces(cells)
        assert sorted(len(piece.cells) for piece in found) == [1, 2, 2, 2, 4]
        assert {cell.key for piece in found for cell in piece.cells} == {cell.key for cell in cells}
        assert all(len({str(cell.variant.settings) for cell in piece.cells}) == 1 for piece in found)

    def test_a_variant_may_have_ratios_of_its_own(self) -> None:
        some = replace(REPLAY, ratios=(0.2,))
        assert {cell.ratio for cell in cells_of(FASHION, [some], RATIOS, [0])} == {0.2}

    def test_the_grid_that_engram_runs_has_exactly_these_jobs(self) -> None:
        uniform = replace(UPFRONT, settings={"aggregation.weighting": "uniform"})
        cells = cells_of(FASHION, [uniform], [0.05], [0, 1])
        command = Piece(tuple(cells)).command(Path("out"), 2)
        options: dict[str, list[str]] = {"--set": [], "--vary": []}
        for option, value in itertools.pairwise(command):
            options.get(option, []).append(value)
        grid = expand(load_mapping(ROOT / FASHION.job), options["--set"], options["--vary"], FASHION.job)
        assert {cell.job.digest() for cell in grid.cells} == {cell.job().digest() for cell in cells}


SMALL = replace(DIGITS, settings={"training.roundsPerTask": 1, "training.localSteps": 2, "tasks.count": 2})


@pytest.mark.process
@pytest.mark.timeout(600)
def test_what_is_finished_is_not_run_again_unless_its_code_has_changed(tmp_path: Path) -> None:
    seen: list[int] = []

    def run(*variants: Variant) -> dict[Key, Row]:
        cells = cells_of(SMALL, variants, [1.0], [0])
        return running.run(tmp_path, cells, jobs=2, after=lambda found: seen.append(len(found)))

    first = run(REPLAY)
    both = run(REPLAY, UPFRONT)
    assert seen == [1, 2]
    replay, upfront = (both[Cell(SMALL, variant, 1.0, 0).key] for variant in (REPLAY, UPFRONT))
    assert first == {replay.key: replay}
    assert replay.split == upfront.split
    assert (replay.forget_rate is None, upfront.forget_rate is None) == (False, True)
    assert replay.bytes > 0
    assert replay.cpu_seconds is not None

    assert run(UPFRONT, REPLAY) == both
    assert seen == [1, 2]
    note = tmp_path / "piece-001.json"
    note.write_text(json.dumps({"code": {"replay": "older"}}))
    found = running.finished(tmp_path, cells_of(SMALL, [REPLAY, UPFRONT], [1.0], [0]))
    assert set(found) == {upfront.key}


def command(*options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "benchmarks/fashion_fcil_20.py", *options]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.process
def test_the_command_lists_its_variants() -> None:
    listed = command("--list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split("  ")[0] for line in listed.stdout.splitlines()] == [one.name for one in VARIANTS]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "iclar"], "no variant is called iclar"),
        (["--seeds", "3,10"], "seeds 10 are for choosing settings"),
        (["--seeds", "10,11", "--page", "page.md"], "seeds 10, 11 are for choosing settings"),
        (["--benchmark", "digits", "--json", "{file}"], "holds another benchmark"),
    ],
)
def test_what_would_spoil_results_is_refused_before_anything_runs(
    options: list[str], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    of_fashion = Row(
        FASHION.name, "replay", 0.2, 0, 0.7, 0.8, 0.1, 0.9, 1.0, 1, "split", "job", "code", "matrix"
    )
    save(file, {"command": "this"}, [of_fashion])
    with pytest.raises(SystemExit, match=words):
        main([option.format(file=file) for option in options])
