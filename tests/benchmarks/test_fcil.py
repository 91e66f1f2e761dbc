"""The benchmark of algorithms: what it runs, and what counts as the same run."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fcil import merging, running
from benchmarks.fcil.cells import Cell, Key, cells_of
from benchmarks.fcil.code import closure, code_digest, digest_of
from benchmarks.fcil.command import main, without_places
from benchmarks.fcil.rows import Row, load, save
from benchmarks.fcil.running import Piece, pieces
from benchmarks.fcil.variants import (
    BENCHMARKS,
    RATIOS,
    VARIANTS,
    Variant,
    benchmark_called,
    chosen,
)
from engram.learning.algorithms import BUILT_IN
from engram.run.grid import expand
from engram.run.source import load_mapping
from engram.spec.dotted import is_dotted
from tests.benchmarks.fcil_rows import FASHION, row

ROOT = Path(__file__).parents[2]
DIGITS = benchmark_called("digits")
REPLAY, ICARL, UPFRONT = chosen(["replay", "icarl", "joint upfront"])
KNOWN = [variant for variant in VARIANTS if variant.known]


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
        ends = min(benchmark.ratios), max(benchmark.ratios)
        for cell in cells_of(benchmark, [variant], ends, (3,)):
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
        modules = {name.partition(":")[0] if is_dotted(name) else BUILT_IN[name].__module__ for name in names}
        assert len({code_digest(name) for name in names}) == len(modules)
        tried = closure(("benchmarks.fcil.tried",), ROOT)
        assert {"benchmarks.fcil.tried", "engram.learning.algorithms.discmatch"} <= tried

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

    def test_a_module_counts_wherever_it_is_and_has_to_be_there(self, tmp_path: Path) -> None:
        module = tmp_path / "mine.py"
        module.write_text("RATE = 1\n")
        before = digest_of("mine", tmp_path)
        module.write_text("RATE = 2\n")
        assert digest_of("mine", tmp_path) != before
        with pytest.raises(FileNotFoundError):
            digest_of("nowhere", tmp_path)


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
        assert merging.kept(FASHION, old, {old[1].key}, "a processor", drop=False) == [old[0]]

    @pytest.mark.parametrize("change", [{"job": "other"}, {"code": "other"}, {"algorithm": "gone"}])
    def test_others_are_refused_by_name_or_dropped(self, change: Mapping[str, Any]) -> None:
        stale = replace(self.today(REPLAY, 0), **change)
        with pytest.raises(SystemExit, match=rf"1 rows of another version.*{stale.algorithm}"):
            merging.kept(FASHION, [stale], set(), "a processor", drop=False)
        assert merging.kept(FASHION, [stale], set(), "a processor", drop=True) == []
        assert merging.kept(FASHION, [stale], {stale.key}, "a processor", drop=False) == []

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

    @pytest.mark.parametrize(
        ("matrix", "code", "stay"), [("here", "older", 3), ("another", "older", 0), ("here", "third", 0)]
    )
    def test_on_another_processor_the_rows_own_code_runs_beside_todays(
        self, matrix: str, code: str, stay: int
    ) -> None:
        """Neither has the matrix of the rows; what counts is that they have the same, by the rows' code."""
        old = [replace(self.today(REPLAY, seed), code="older") for seed in range(3)]

        def run(cells: Sequence[Cell]) -> dict[Key, Row]:
            return {cell.key: self.today(REPLAY, cell.seed, matrix="here") for cell in cells}

        def earlier(cells: Sequence[Cell]) -> dict[Key, Row]:
            return {key: replace(made, matrix=matrix, code=code) for key, made in run(cells).items()}

        found = merging.confirmed(FASHION, old, run, earlier)
        assert found == [self.today(REPLAY, seed) for seed in range(3)][:stay]

    def test_other_versions_are_another_file(self) -> None:
        class Here:
            python, torch = "3.11", "2.5"

        merging.check_versions({"python": "3.11", "torch": "2.5"}, Here, ("python", "torch"))
        merging.check_versions({}, Here, ("python", "torch"))
        with pytest.raises(SystemExit, match=r"measured with torch 2.4, here it is 2.5"):
            merging.check_versions({"torch": "2.4"}, Here, ("python", "torch"))

    def test_what_is_compared_is_of_one_processor(self) -> None:
        """replay beside icarl is; a model with another norm, whose rows nobody subtracts, may not be."""
        (batch,) = chosen(["fedlwf, BatchNorm"])
        old = [self.today(REPLAY, 0), self.today(ICARL, 0), self.today(batch, 0)]
        wanted = {old[0].key}
        with pytest.raises(SystemExit, match=r"^1 rows .* on a processor, here it is another: icarl\."):
            merging.kept(FASHION, old, wanted, "another", drop=False)
        assert merging.kept(FASHION, old, wanted, "another", drop=True) == [old[2]]
        assert merging.kept(FASHION, old, {old[0].key, old[1].key}, "another", drop=False) == [old[2]]
        assert merging.kept(FASHION, old, wanted, "a processor", drop=False) == old[1:]

    def test_matrices_of_another_processor_confirm_nothing(self) -> None:
        fresh, stale = self.today(REPLAY, 0), replace(self.today(ICARL, 0), code="older")
        merging.check_confirmable(FASHION, [fresh], "another")
        merging.check_confirmable(FASHION, [fresh, stale], "a processor")
        with pytest.raises(SystemExit, match=r"a processor, here it is another: icarl\. Add --made-by"):
            merging.check_confirmable(FASHION, [fresh, stale], "another")

    def test_a_file_is_read_as_it_was_written_whatever_the_order(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.json"
        some = [row("replay", 1, 0.7, forget_rate=None), row("replay", 0, 0.6), row("icarl", 0, 0.8)]
        save(file, {"command": "this", "history": []}, some)
        facts, found = load(file)
        assert facts == {"command": "this", "history": []}
        assert found == [some[2], some[1], some[0]]
        assert json.loads(file.read_text())["rows"][0] == asdict(some[2])
        assert load(tmp_path / "none.json") == ({}, [])


SMALL = replace(
    DIGITS,
    settings={"training.roundsPerTask": 1, "training.localSteps": 2, "tasks.count": 2},
    chosen=(),
)


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


@pytest.mark.process
def test_the_code_of_another_checkout_makes_runs(tmp_path: Path) -> None:
    """In a copy where training takes no step, other figures come out, under the copy's digest."""
    other, cell = tmp_path / "other", Cell(SMALL, REPLAY, 1.0, 0)
    for part in ("engram", "examples"):
        shutil.copytree(ROOT / part, other / part, ignore=shutil.ignore_patterns("mnist", "__pycache__"))
    learner = other / "engram/learning/steps.py"
    text = learner.read_text(encoding="utf-8")
    assert text.count(".step()") == 1
    learner.write_text(text.replace(".step()", ".zero_grad()"), encoding="utf-8")
    rows = [running.run(tmp_path / at.name, [cell], jobs=1, root=at)[cell.key] for at in (ROOT, other)]
    assert rows[0].code == cell.code
    assert rows[1].code == code_digest("replay", other) != cell.code
    assert rows[1].matrix != rows[0].matrix


def test_no_folder_of_this_machine_gets_into_a_file() -> None:
    words = ["python", "it.py", "--keep", "/a", "--confirm", "--made-by=/b", "--json=/c", "--only", "x=y"]
    assert without_places(words) == ["python", "it.py", "--confirm", "--made-by", "DIR", "--only", "x=y"]


def command(*options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "benchmarks/fashion_fcil_20.py", *options]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.process
def test_the_command_lists_its_variants() -> None:
    listed = command("--list")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [one.name for one in VARIANTS]
    assert next(line for line in lines if line.startswith("bic ")).endswith("[fashion-fcil-20]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "iclar"], "no variant is called iclar"),
        (["--seeds", "3,10"], "seeds 10 are for choosing settings"),
        (["--seeds", "10,11", "--page", "page.md"], "seeds 10, 11 are for choosing settings"),
        (["--benchmark", "digits", "--json", "{file}"], "holds another benchmark"),
        (["--made-by", "."], "--made-by is for --confirm"),
        (["--confirm", "--made-by", "."], "--confirm is for the rows of a file"),
        (["--benchmark", "digits", "--only", "bic;replay"], "digits at label ratios 1 has no bic"),
        (
            ["--only", "discmatch, nearest means", "--ratios", "0.02"],
            "at label ratios 0.02 has no discmatch, near",
        ),
        (["--confirm", "--made-by", "docs"], "--made-by docs holds no checkout of engram"),
    ],
)
def test_what_would_spoil_results_is_refused_before_anything_runs(
    options: list[str], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    save(file, {"command": "this"}, [row("replay", 0, 0.7)])
    before = file.read_text()
    with pytest.raises(SystemExit, match=words):
        main([option.format(file=file) for option in options])
    assert file.read_text() == before


def test_a_file_of_another_processor_is_not_added_to_and_may_be_started_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is run: what a row becomes is in other tests."""
    asked: list[list[str]] = []

    def run(folder: Path, cells: Sequence[Cell], **options: Any) -> dict[Key, Row]:
        asked.append(sorted({cell.variant.name for cell in cells}))
        return {cell.key: row(cell.variant.name, cell.seed, 0.6, code=cell.code) for cell in cells}

    monkeypatch.setattr(running, "run", run)
    file = tmp_path / "rows.json"
    cell = Cell(FASHION, ICARL, 0.2, 0)
    old = row("icarl", 0, 0.7, job=cell.digest(), code=cell.code, cpu="of another make")
    save(file, {"command": "this"}, [old])
    options = ["--json", str(file), "--ratios", "0.2", "--seeds", "0", "--only"]
    for more in ([], ["--confirm"]):
        with pytest.raises(SystemExit, match="measured on of another make, here it is"):
            main([*options, "replay", *more])
    assert asked == []
    both = ["--only", "replay;icarl", *options[:-1]]
    with pytest.raises(SystemExit, match="measured on of another make"):
        main([*both, "--confirm"])
    main([*both, "--confirm", "--drop-stale"])
    assert asked[-1] == ["icarl", "replay"], "what was asked for is run, not lost"
    save(file, {"command": "this"}, [old])
    main([*options, "fedlwf, BatchNorm"])
    assert [one.algorithm for one in load(file)[1]] == ["fedlwf, BatchNorm", "icarl"]
    main([*options, "replay", "--drop-stale"])
    assert "icarl" not in {one.algorithm for one in load(file)[1]}
    save(file, {"command": "this", "torch": "1.0"}, [old])
    main([*options, "fedlwf, BatchNorm", "--drop-stale"])
    assert [one.algorithm for one in load(file)[1]] == ["fedlwf, BatchNorm"]
