"""The command: what is run, what of earlier results stays, and where the results go."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fcil import figures, merging, page, running
from benchmarks.fcil.bars import judge
from benchmarks.fcil.cells import Cell, Key, cells_of
from benchmarks.fcil.rows import Row, load, save
from benchmarks.fcil.table import Table
from benchmarks.fcil.variants import (
    BENCHMARKS,
    VARIANTS,
    Benchmark,
    Variant,
    benchmark_called,
    chosen,
)
from engram.errors import ConfigurationError
from engram.report.formats import number, share
from engram.run.facts import environment

QUICK, QUICK_VARIANTS, QUICK_SEEDS = "digits", "finetune;replay", (0, 1)
"""Less than a minute: is everything in place?"""

PROGRAM = "python benchmarks/fashion_fcil_20.py"
FACTS = {"engram", "python", "torch", "numpy", "platform", "cores"}
"""Of the machine that wrote a file last; the processor is in the rows."""
PLACES = ("--keep", "--data", "--json", "--page")


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    found = argparse.ArgumentParser(
        prog=PROGRAM, description="Accuracy and forgetting of every algorithm at several label ratios."
    )
    add = found.add_argument
    add("--benchmark", choices=names, default=names[0], help="default: %(default)s")
    add("--quick", action="store_true", help="digits, finetune and replay, two seeds")
    add("--only", metavar="NAMES", default="", help="variants, split by ';' (--list)")
    add("--ratios", metavar="R,R", default="", help="label ratios instead of the benchmark's")
    add("--seeds", metavar="N,N", default="", help="seeds, such as 10,11,12 for choosing a setting")
    add("--data", type=Path, metavar="DIR", help="folder of the data (spec.dataset.path)")
    add("--keep", type=Path, metavar="DIR", help="keep runs there; what is finished there is not run again")
    add("--json", type=Path, metavar="FILE", help="write the rows; FILE's other rows stay")
    add("--page", type=Path, metavar="FILE", help="put tables into FILE, figures into images/ beside it")
    add("--jobs", type=int, default=2, help="runs at a time; default: %(default)s")
    add(
        "--drop-stale",
        action="store_true",
        help="drop rows of FILE that other code or versions made, or another processor where they would be "
        "compared with those that are run",
    )
    add(
        "--confirm",
        action="store_true",
        help="keep rows of FILE without running them again; those that other code made only if two of each "
        "variant, run again, give the same accuracy matrix bit for bit",
    )
    add(
        "--made-by",
        type=Path,
        metavar="DIR",
        help="with --confirm: a checkout of the code that made the rows of FILE, which then makes the two "
        "runs, too; for a processor or versions other than the rows'. Nothing else is run",
    )
    add("--list", action="store_true", help="list the variants and end")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write; return 1 when a bar is missed, or when a whole run does not measure it."""
    options = parser().parse_args(arguments)
    if options.list:
        return _list()
    benchmark = benchmark_called(QUICK if options.quick else options.benchmark)
    cells = _cells(options, benchmark)
    before, old = load(options.json) if options.json else ({}, [])
    _check(options, benchmark, cells, before, old)
    if options.drop_stale and merging.other_versions(before, environment("", ""), running.VERSIONS):
        before, old = {}, []
    started = time.monotonic()
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
        rows = _rows(options, Path(folder).resolve(), cells, before, old, started)
    table, facts = Table(benchmark.name, rows), _facts(before, rows, started)
    if options.made_by is not None:  # nothing of this machine has come into the rows
        facts = {**before, "history": facts["history"]}
    _print(table)
    if options.json is not None:
        save(options.json, facts, rows)
    if options.page is not None:
        pictures = figures.draw(options.page.parent / "images", table) if benchmark.pictures else []
        lines = [f"![{path.stem}](images/{path.name})" for path in pictures]
        page.write(options.page, benchmark.name, page.section(facts, rows, benchmark.name, lines))
    whole = not (options.quick or options.only or options.ratios or options.seeds)
    verdicts = {one.verdict for one in judge(table)}
    return int("missed" in verdicts or (whole and "not measured" in verdicts))


def _rows(
    options: argparse.Namespace,
    folder: Path,
    cells: Sequence[Cell],
    before: Mapping[str, Any],
    old: Sequence[Row],
    started: float,
) -> list[Row]:
    """Run what is to be run, saving after each grid; return all rows, those of the file that stay first."""
    if options.confirm:
        stay = merging.confirmed(
            cells[0].benchmark,
            old,
            lambda some: running.run(folder, some, jobs=options.jobs),
            _earlier(options, folder),
        )
        stay, cells = merging.settled(
            stay, [] if options.made_by is not None else cells, environment("", "").cpu
        )
        lost = {row.key for row in old} - {row.key for row in stay} - {cell.key for cell in cells}
        if lost and not options.drop_stale:
            names = "; ".join(sorted({key[1] for key in lost}))
            raise SystemExit(
                f"rows that were not confirmed, or may not stay beside those: {names}. Run them, too (--only)"
            )
    else:
        wanted = {cell.key for cell in cells}
        cpu = environment("", "").cpu
        stay = merging.kept(cells[0].benchmark, old, wanted, cpu, drop=options.drop_stale)

    def write(found: Mapping[Key, Row]) -> None:
        if options.json is not None:
            rows = [*stay, *found.values()]
            save(options.json, _facts(before, rows, started), rows)

    found = running.run(folder, cells, jobs=options.jobs, after=write)
    return [*stay, *found.values()]


def _earlier(options: argparse.Namespace, folder: Path) -> merging.Run | None:
    """Return what makes runs by the code of --made-by."""
    if options.made_by is None:
        return None
    root = options.made_by.resolve()
    return lambda some: running.run(folder / "made-by", some, jobs=options.jobs, root=root)


def _cells(options: argparse.Namespace, benchmark: Benchmark) -> list[Cell]:
    """Return what the options ask for; raises SystemExit for what there is not."""
    names = QUICK_VARIANTS if options.quick else options.only
    wanted = chosen([name.strip() for name in names.split(";") if name.strip()])
    unknown = [variant.name for variant in wanted if not variant.known]
    if unknown:
        print(f"left out, this version of engram does not have them: {', '.join(unknown)}", flush=True)
    if options.data is not None:
        benchmark = benchmark.at(str(options.data.resolve()))
    seeds = QUICK_SEEDS if options.quick else _numbers(options.seeds, int) or benchmark.seeds
    ratios = _numbers(options.ratios, float) or benchmark.ratios
    cells = cells_of(benchmark, [variant for variant in wanted if variant.known], ratios, seeds)
    try:
        for cell in cells:
            cell.job()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from error
    absent = [variant.name for variant in wanted if variant.name not in {cell.variant.name for cell in cells}]
    if options.only and absent:
        at = ", ".join(f"{ratio:g}" for ratio in ratios)
        raise SystemExit(f"{benchmark.name} at label ratios {at} has no {'; '.join(absent)} (see --list)")
    if not cells:
        raise SystemExit("nothing to run")
    return cells


def _check(
    options: argparse.Namespace,
    benchmark: Benchmark,
    cells: Sequence[Cell],
    before: Mapping[str, Any],
    old: Sequence[Row],
) -> None:
    """Refuse what would spoil a file or a page of results. Raises SystemExit."""
    seeds = {cell.seed for cell in cells} | {row.seed for row in old}
    others = sorted(seeds - set(benchmark.seeds))
    if others and (options.page is not None or len(others) < len(seeds)):
        raise SystemExit(
            f"seeds {', '.join(map(str, others))} are for choosing settings: write them into a file of their "
            f"own, without --page; published are {', '.join(map(str, benchmark.seeds))}"
        )
    if {row.benchmark for row in old} - {benchmark.name}:
        raise SystemExit(f"{options.json} holds another benchmark: name a file for {benchmark.name}")
    if options.made_by is not None and (not options.confirm or options.drop_stale):
        raise SystemExit("--made-by is for --confirm, without --drop-stale")
    if options.made_by is not None and not (options.made_by / "engram/learning").is_dir():
        raise SystemExit(f"--made-by {options.made_by} holds no checkout of engram")
    if options.confirm and not old:
        raise SystemExit("--confirm is for the rows of a file: name it (--json)")
    here = environment("", "")
    if options.made_by is not None or options.drop_stale:
        return
    merging.check_versions(before, here, running.VERSIONS)
    if options.confirm:
        known = {row.key for row in old}
        merging.check_confirmable(benchmark, old, here.cpu)
        merging.check_processor(old, {cell.key for cell in cells} - known, here.cpu)


def _facts(before: Mapping[str, Any], rows: Sequence[Row], started: float) -> dict[str, Any]:
    """Return what the file says beside its rows; `history` has the commands that made it."""
    benchmark = rows[0].benchmark
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    here = environment("in-process", "")
    this = {
        "command": shlex.join(without_places(["python", *sys.argv])),
        "cpu": here.cpu,
        "time": now,
        "seconds": round(time.monotonic() - started),
    }
    names = {row.algorithm for row in rows}
    return {
        "command": f"{PROGRAM} --benchmark {benchmark}",
        **here.model_dump(include=FACTS),
        "time": now,
        "history": [*before.get("history", []), this],
        "variants": {variant.name: _described(variant) for variant in VARIANTS if variant.name in names},
    }


def without_places(words: Sequence[str]) -> list[str]:
    """Return a command without folders of this machine, which are nothing to others."""
    found = [word for whole in words for word in _halves(whole)]
    if "--made-by" in found:
        found[found.index("--made-by") + 1] = "DIR"
    for option in PLACES:
        if option in found:
            place = found.index(option)
            del found[place : place + 2]
    return found


def _halves(word: str) -> list[str]:
    """Return --option=value as two words, where that is a folder."""
    option, _, value = word.partition("=")
    return [option, value] if option in (*PLACES, "--made-by") and value else [word]


def _described(variant: Variant) -> dict[str, Any]:
    parts = {
        "parameters": dict(variant.parameters),
        "all_labelled": dict(variant.all_labelled),
        "settings": dict(variant.settings),
    }
    return {"algorithm": variant.algorithm, **{name: part for name, part in parts.items() if part}}


def _print(table: Table) -> None:
    """Print means and verdicts."""
    columns = ("labels", 6), ("n", 2), ("accuracy %", 12), ("forget", 7), ("newest", 7), ("CPU s", 6)
    print(" ".join([f"\n{'algorithm':32}", *(title.rjust(width) for title, width in columns)]))
    for name in table.variants:
        for ratio in (ratio for ratio in table.ratios if table.of(name, ratio)):
            accuracy, forgot = table.mean(name, ratio), table.mean(name, ratio, "forget_rate")
            newest = table.mean(name, ratio, "newest_task_accuracy")
            error = "" if accuracy.error is None else f" ± {100 * accuracy.error:.1f}"
            cells = [
                f"{name:32} {share(ratio, 0):>6} {accuracy.n:>2}",
                f"{100 * (accuracy.mean or 0):.1f}{error}".rjust(12),
                ("-" if forgot.mean is None else number(100 * forgot.mean)).rjust(7),
                number(100 * (newest.mean or 0)).rjust(7),
                number(table.mean(name, ratio, "cpu_seconds").mean, 0).rjust(6),
            ]
            print(" ".join(cells))
    print()
    for one in judge(table):
        verdict = "MISSED" if one.verdict == "missed" else one.verdict
        print(f"{verdict}: {one.bar}" + (f"; found {one.found}" if one.found else ""))


def _list() -> int:
    for variant in VARIANTS:
        told = " ".join(f"{key}={value}" for key, value in {**variant.parameters, **variant.settings}.items())
        where = [benchmark.name for benchmark in BENCHMARKS if benchmark.takes(variant)]
        at = f" at {', '.join(f'{ratio:g}' for ratio in variant.ratios)}" if variant.ratios else ""
        version = "" if variant.known else " (not in this version)"
        print(f"{variant.name:36} {variant.algorithm} {told}{version}  [{', '.join(where)}{at}]")
    return 0


def _numbers(text: str, kind: type[Any]) -> tuple[Any, ...]:
    return tuple(kind(part) for part in text.split(",") if part.strip())
