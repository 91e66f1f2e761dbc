"""The benchmark of algorithms: what it runs, what counts as the same run, and what it makes of the rows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fcil import bars, merging, page, running
from benchmarks.fcil.bars import Bar, Bound, Gap, Margin
from benchmarks.fcil.cells import Cell, Key, cells_of
from benchmarks.fcil.code import closure, code_digest, digest_of
from benchmarks.fcil.command import main
from benchmarks.fcil.figures import draw
from benchmarks.fcil.rows import Row, load, save
from benchmarks.fcil.running import Piece, pieces
from benchmarks.fcil.table import Comparison, Table, comparisons
from benchmarks.fcil.variants import (
    BENCHMARKS,
    CEILING,
    OURS,
    RATIOS,
    VARIANTS,
    Variant,
    benchmark_called,
    chosen,
)
from engram.learning.algorithms import BUILT_IN
from engram.run.grid import expand
from engram.run.source import load_mapping
from engram.spec.loader import load_job

ROOT = Path(__file__).parents[2]
FASHION, DIGITS = benchmark_called("fashion-fcil-20"), benchmark_called("digits")
REPLAY, ICARL, UPFRONT = chosen(["replay", "icarl", "joint upfront"])
KNOWN = [variant for variant in VARIANTS if variant.known]


def row(variant: str, seed: int, accuracy: float, ratio: float = 0.2, **changes: Any) -> Row:
    found = Row(
        benchmark=FASHION.name,
        algorithm=variant,
        label_ratio=ratio,
        seed=seed,
        final_accuracy=accuracy,
        average_incremental_accuracy=accuracy + 0.1,
        forget_rate=0.1,
        newest_task_accuracy=0.9,
        cpu_seconds=10.0,
        bytes=2_000_000,
        split=f"split {seed}",
        job="job",
        code="code",
        matrix="matrix",
    )
    return replace(found, **changes)


def rows(variant: str, *accuracies: float, ratio: float = 0.2) -> list[Row]:
    return [row(variant, seed, accuracy, ratio) for seed, accuracy in enumerate(accuracies)]


class TestVariants:
    def test_names_are_used_once_and_ablations_have_their_whole(self) -> None:
        names = [variant.name for variant in VARIANTS]
        assert len(set(names)) == len(names)
        assert {variant.ablates for variant in VARIANTS if variant.ablates} <= set(names)
        assert not any(";" in name for name in names)

    @pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
    @pytest.mark.parametrize("variant", KNOWN, ids=lambda variant: variant.name)
    def test_every_variant_makes_a_valid_job_of_every_benchmark(
        self, benchmark: Any, variant: Variant
    ) -> None:
        for cell in cells_of(benchmark, [variant], (0.05, 1.0), (3,)):
            job = cell.job()
            assert (job.spec.seed, job.spec.dataset.label_ratio) == (3, cell.ratio)
            assert job.spec.algorithm.name == variant.algorithm

    def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(self) -> None:
        with pytest.raises(SystemExit, match="no variant is called iclar; there are: finetune; "):
            chosen(["replay", "iclar"])


class TestSameRun:
    def test_what_decides_a_result_makes_another_job(self) -> None:
        cell = Cell(FASHION, REPLAY, 0.2, 0)
        others = [
            replace(cell, seed=1),
            replace(cell, ratio=0.05),
            replace(cell, variant=ICARL),
            replace(cell, variant=replace(REPLAY, parameters={"exemplarsPerWorker": 20})),
            replace(cell, variant=replace(REPLAY, settings={"training.localSteps": 8})),
        ]
        assert len({cell.digest(), *(other.digest() for other in others)}) == 6

    def test_names_places_and_defaults_do_not(self) -> None:
        cell = Cell(FASHION, REPLAY, 0.2, 0)
        spelt = replace(REPLAY, name="other", parameters={"exemplarsPerWorker": 50, "weightAlignment": True})
        assert replace(cell, variant=spelt).digest() == cell.digest()
        assert replace(cell, benchmark=FASHION.at("/elsewhere")).digest() == cell.digest()

    def test_an_algorithms_code_is_its_own_and_what_all_share(self) -> None:
        found = closure(("engram.learning.algorithms.icarl", "engram.learning.local_learner"), ROOT)
        shared = {"engram.learning.steps", "engram.learning.losses", "engram.learning.algorithms.fedlwf"}
        assert shared | {"engram.learning.memory"} <= found
        assert "engram.learning.algorithms.replay" not in found
        assert "engram.learning.algorithms" not in found
        names = {variant.algorithm for variant in KNOWN}
        modules = {BUILT_IN[name].__module__ for name in names}
        assert len({code_digest(name) for name in names}) == len(modules)

    def test_words_about_the_code_do_not_count(self, tmp_path: Path) -> None:
        package = tmp_path / "engram" / "learning"
        package.mkdir(parents=True)
        module, other = package / "mine.py", package / "other.py"
        other.write_text("RATE = 1\n")
        module.write_text('"""Why."""\nfrom engram.learning.other import RATE\n\ndef f():\n    return RATE\n')
        before = digest_of("engram.learning.mine", tmp_path)
        module.write_text(
            'from engram.learning.other import RATE\n# so\ndef f():\n    "Do."\n    return RATE\n'
        )
        assert digest_of("engram.learning.mine", tmp_path) == before
        other.write_text("RATE = 2\n")
        assert digest_of("engram.learning.mine", tmp_path) != before


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


class TestMerging:
    def today(self, variant: Variant, seed: int, **changes: Any) -> Row:
        cell = Cell(FASHION, variant, 0.2, seed)
        return row(variant.name, seed, 0.7, job=cell.digest(), code=cell.code, **changes)

    def test_rows_of_today_stay_beside_those_that_are_run(self) -> None:
        old = [self.today(REPLAY, 0), self.today(ICARL, 0)]
        assert merging.kept(FASHION, old, {old[1].key}, drop=False) == [old[0]]

    @pytest.mark.parametrize("change", [{"job": "other"}, {"code": "other"}, {"algorithm": "gone"}])
    def test_others_are_refused_by_name_or_dropped(self, change: Mapping[str, Any]) -> None:
        stale = replace(self.today(REPLAY, 0), **change)
        with pytest.raises(SystemExit, match=rf"1 rows of another version.*{stale.algorithm}"):
            merging.kept(FASHION, [stale], set(), drop=False)
        assert merging.kept(FASHION, [stale], set(), drop=True) == []
        assert merging.kept(FASHION, [stale], {stale.key}, drop=False) == []

    @pytest.mark.parametrize(("now", "stay"), [("matrix", 3), ("another", 0)])
    def test_two_equal_matrices_confirm_a_variant(self, now: str, stay: int) -> None:
        old = [replace(self.today(REPLAY, seed), code="older") for seed in range(3)]
        asked: list[Key] = []

        def run(cells: Sequence[Cell]) -> dict[Key, Row]:
            asked.extend(cell.key for cell in cells)
            matrices = ["matrix", now]
            return {
                cell.key: self.today(REPLAY, cell.seed, matrix=m)
                for cell, m in zip(cells, matrices, strict=True)
            }

        found = merging.confirmed(FASHION, old, run)
        assert asked == [old[0].key, old[2].key]
        assert len(found) == stay
        assert all(row == self.today(REPLAY, row.seed) for row in found)

    def test_another_processor_is_another_file(self) -> None:
        class Here:
            cpu, torch = "this one", "2.5"

        merging.check_machine({"cpu": "this one", "torch": "2.5"}, Here, ("cpu", "torch"))
        merging.check_machine({}, Here, ("cpu", "torch"))
        with pytest.raises(SystemExit, match="measured with cpu that one, here it is this one"):
            merging.check_machine({"cpu": "that one"}, Here, ("cpu", "torch"))

    def test_a_file_is_read_as_it_was_written_whatever_the_order(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.json"
        some = [row("replay", 1, 0.7, forget_rate=None), row("replay", 0, 0.6), row("icarl", 0, 0.8)]
        save(file, {"command": "this", "history": []}, some)
        facts, found = load(file)
        assert facts == {"command": "this", "history": []}
        assert found == [some[2], some[1], some[0]]
        assert json.loads(file.read_text())["rows"][0] == asdict(some[2])
        assert load(tmp_path / "none.json") == ({}, [])


class TestTables:
    table = Table(
        FASHION.name,
        [
            *rows("replay", 0.70, 0.72, 0.74),
            *rows("icarl", 0.60, 0.80, 0.79),
            *rows(OURS, 0.76, 0.83, 0.84),
            *rows("semifci", 0.76, 0.83, 0.84),
            *rows(CEILING, 0.80, 0.85, 0.85),
            *rows("replay", 0.5, 0.6, ratio=0.05),
        ],
    )

    def test_ours_is_compared_with_the_best_of_the_baselines_at_that_ratio(self) -> None:
        ours = Comparison(OURS, ("replay", "icarl"))
        assert self.table.rival(ours, 0.2) == "icarl"
        found = self.table.difference(ours, 0.2)
        assert found is not None
        assert found.mean == pytest.approx(0.08)  # .16, .03, .05
        assert self.table.difference(ours, 0.05) is None
        closed = self.table.closed(0.2)
        assert closed is not None
        assert closed.mean == pytest.approx(0.24 / 0.31)

    def test_every_ablation_is_compared_with_its_whole(self) -> None:
        titles = {one.title for one in comparisons()}
        assert {f"{variant.name} - {variant.ablates}" for variant in VARIANTS if variant.ablates} <= titles
        assert f"{OURS} - best of replay, icarl" in titles

    def test_bars_are_reached_missed_or_not_measured(self) -> None:
        verdicts: list[tuple[Bar, str]] = [
            (Bound(FASHION.name, "replay", 0.2, at_least=0.65), "reached"),
            (Bound(FASHION.name, "replay", 0.2, at_most=0.65), "missed"),
            (Bound(FASHION.name, "replay", 0.2, at_most=0.05, figure="forget_rate"), "missed"),
            (Bound(FASHION.name, "replay", 0.1, at_least=0.65), "not measured"),
            # Differences of .06, .11, .10: mean .09, error .0153.
            (Margin(FASHION.name, Comparison(OURS, ("replay",)), 0.2, 2.0), "reached"),
            (Margin(FASHION.name, Comparison(OURS, ("replay",)), 0.2, 6.0), "missed"),
            # Below by .01 with an error of .056, and by .09 with one of .0153.
            (Margin(FASHION.name, Comparison("replay", ("icarl",)), 0.2, -1.0), "reached"),
            (Margin(FASHION.name, Comparison("replay", (OURS,)), 0.2, -1.0), "missed"),
            (Margin(FASHION.name, Comparison(OURS, ("replay",)), 0.05, 2.0), "not measured"),
            (Gap(FASHION.name, 0.2, 0.5), "reached"),
            (Gap(FASHION.name, 0.2, 0.8), "missed"),
            (Gap(FASHION.name, 0.05, 0.5), "not measured"),
        ]
        assert [bar.judged(self.table).verdict for bar, _ in verdicts] == [wanted for _, wanted in verdicts]
        # .16 - .1, .03 - .025 and .05 - .03 above half of the gap.
        half = Gap(FASHION.name, 0.2, 0.5).judged(self.table)
        assert half.found == "2.8 ± 1.6 points above that (n 3)"

    def test_the_bars_of_the_issue_are_all_there(self) -> None:
        found = bars.judge(self.table)
        assert len(found) == 17
        assert found[1].bar == "replay, 20% labels: accuracy >= 65%"
        assert (found[1].found, found[1].verdict) == ("72.0% (n 3)", "reached")
        assert {one.verdict for one in bars.judge(Table("digits", []))} == {"not measured"}

    def test_the_page_shows_means_errors_n_differences_and_verdicts(self, tmp_path: Path) -> None:
        facts = {
            "command": "python benchmarks/fashion_fcil_20.py",
            "cpu": "a processor",
            "cores": 2,
            "engram": "0.1",
            "python": "3.11",
            "torch": "2.5",
            "time": "2026-01-01 00:00 UTC",
        }
        text = page.section(facts, self.table.rows, FASHION.name, ["![a](images/a.png)"])
        assert "| replay | 55.0 ± 5.0 % (n 2) | 72.0 ± 1.2 % (n 3) |" in text
        assert (
            "| 20% | replay | 72.0 ± 1.2 % | 82.0 ± 1.2 % | 10.0 ± 0.0 % | 90.0 ± 0.0 % | 2.0 | 10.0 | 3 |"
            in text
        )
        assert "| semifci - replay | - | +9.0 ± 1.5 [+2.4, +15.6] (n 3) |" in text
        assert "(n 3, icarl) |" in text
        assert f"| {OURS} | - | 77 ± " in text
        assert "| finetune, 20% labels: accuracy <= 25% | - | not measured |" in text
        file = tmp_path / "page.md"
        start, end = page.markers(FASHION.name)
        file.write_text(f"Before.\n{start}\nold\n{end}\nAfter.\n")
        for _ in range(2):
            page.write(file, FASHION.name, text)
            assert page.shown(file.read_text(), FASHION.name) == text
        assert file.read_text().endswith(f"{end}\nAfter.\n")
        with pytest.raises(SystemExit, match="no place for the figures"):
            page.write(file, "digits", text)

    def test_a_gap_within_its_own_noise_has_no_share_and_the_page_says_how_large_it_is(self) -> None:
        """Gaps of .00, .01 and .02 to icarl, the better baseline: 1.0 point, error .58."""
        narrow = Table(
            FASHION.name,
            [
                *rows("replay", 0.60, 0.60, 0.60),
                *rows("icarl", 0.70, 0.70, 0.70),
                *rows(OURS, 0.80, 0.80, 0.80),
                *rows(CEILING, 0.70, 0.71, 0.72),
            ],
        )
        assert page._closed(narrow, 0.2, OURS) == "- (gap +1.0 ± 0.6)"
        assert page._closed(self.table, 0.2, OURS).startswith("77 ± ")

    def test_other_splits_are_said_in_the_table_and_not_averaged(self) -> None:
        foreign = [row("semifci", seed, 0.9, split="elsewhere") for seed in range(3)]
        text = page.section(
            dict.fromkeys(("command", "cpu", "cores", "engram", "python", "torch", "time"), ""),
            [*rows("replay", 0.7, 0.7, 0.7), *foreign],
            FASHION.name,
            [],
        )
        assert "| semifci - replay | the splits of seed 0 differ: elsewhere and split 0 |" in text

    def test_the_pictures_are_drawn(self, tmp_path: Path) -> None:
        names = [path.name for path in draw(tmp_path, self.table)]
        assert names == ["fashion-fcil-20-labels.png", "fashion-fcil-20-forgetting.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_committed_page_shows_the_committed_rows(benchmark: Any) -> None:
    text = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")
    file = ROOT / "docs" / "benchmark" / f"{benchmark.name}.json"
    facts, found = load(file)
    shown = page.shown(text, benchmark.name)
    if not found:
        assert shown == ""
        return
    pictures = [line for line in shown.splitlines() if line.startswith("![")]
    assert shown == page.section(facts, found, benchmark.name, pictures)
    assert {one.seed for one in found} <= set(benchmark.seeds)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks/jobs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_published_settings_are_valid_jobs_that_say_where_they_differ(path: Path) -> None:
    job = load_job(path)
    assert job.spec.dataset.name == "cifar100"
    assert job.spec.tasks.count * job.spec.tasks.classes_per_task == 100
    text = path.read_text(encoding="utf-8")
    assert "What is otherwise here:" in text
    assert f"benchmarks/jobs/{path.name}" in text
    assert max(map(len, text.splitlines())) <= 120


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
    save(file, {"command": "this"}, [row("replay", 0, 0.7)])
    with pytest.raises(SystemExit, match=words):
        main([option.format(file=file) for option in options])
