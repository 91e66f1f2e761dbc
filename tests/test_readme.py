"""The README tells the truth: its links, its commands, its job and its figures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fcil.rows import load
from benchmarks.fcil.table import Comparison, Table
from benchmarks.fcil.variants import BASELINES, CEILING, OURS, PSEUDO_REPLAY
from benchmarks.federation_load import page as federation_page
from engram.spec import load_yaml, parse_job

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = (".", "docs/**", "examples", "charts/**", "deploy", "images")
PAGES = [page for folder in FOLDERS for page in sorted(ROOT.glob(f"{folder}/*.md"))]


def figures(row: dict[str, Any]) -> str:
    """The line of the README's table for a row of the committed measurement."""
    name = row["algorithm"] + (" (upfront)" if row["algorithm"] == "joint" else "")
    forgot = "one task" if row["forget_rate"] is None else f"{100 * row['forget_rate']:.1f} %"
    accuracy = f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_standard_error']:.1f} %"
    newest = f"{100 * row['newest_task_accuracy']:.1f} %"
    return f"| {row['benchmark']} | {name} | {accuracy} | {forgot} | {newest} | {row['cpu_seconds']:.0f} |"


def test_figures_are_those_of_the_committed_measurement() -> None:
    rows = json.loads((ROOT / "docs/benchmark/reference.json").read_text())["rows"]
    assert len(rows) == 8
    missing = [figures(row) for row in rows if figures(row) not in README]
    assert not missing, "write into README.md:\n" + "\n".join(missing)


def scarce(table: Table, variant: str) -> str:
    """The line of the README's table of label scarcity for a variant."""
    cells = [variant]
    for ratio in (0.02, 0.05, 0.1, 0.2, 1.0):
        found = table.mean(variant, ratio)
        assert found.mean is not None
        assert found.error is not None
        assert found.n == 5
        cells.append(f"{100 * found.mean:.1f} ± {100 * found.error:.1f} %")
    forgot = table.mean(variant, 0.2, "forget_rate").mean
    return f"| {' | '.join(cells)} | {'-' if forgot is None else f'{100 * forgot:.1f} %'} |"


def test_figures_of_label_scarcity_are_those_of_the_committed_measurement() -> None:
    _, rows = load(ROOT / "docs/benchmark/fashion-fcil-20.json")
    table = Table("fashion-fcil-20", rows)
    names = ["finetune", "replay", "icarl", "glfc", PSEUDO_REPLAY, "semifci", OURS, "joint upfront", CEILING]
    missing = [line for line in (scarce(table, name) for name in names) if line not in README]
    assert not missing, "write into README.md:\n" + "\n".join(missing)


@pytest.mark.parametrize("benchmark", ["fashion-fcil-20", "two-datasets-20"])
def test_the_lead_of_our_algorithm_is_that_of_the_committed_measurement(benchmark: str) -> None:
    _, rows = load(ROOT / f"docs/benchmark/{benchmark}.json")
    table = Table(benchmark, rows)
    for ratio in (0.05, 0.2):
        ahead = table.difference(Comparison(OURS, BASELINES), ratio)
        assert ahead is not None
        assert ahead.mean is not None
        assert ahead.error is not None
        assert f"{100 * ahead.mean:.1f} ± {100 * ahead.error:.1f} points at {ratio:.0%}" in README


def test_figures_of_the_federation_are_those_of_the_committed_measurement() -> None:
    measured = json.loads((ROOT / "docs/benchmark/federation.json").read_text(encoding="utf-8"))
    assert federation_page.shown(README) == federation_page.section(measured)
    sizes = {(row["parameters"], row["workers"]) for row in measured["rows"] if row["system"] == "engram"}
    assert sizes >= {(size, workers) for size in (62_000, 1_000_000, 11_200_000) for workers in (2, 5, 10)}


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= commands <= targets


def test_the_job_in_the_readme_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert parse_job(load_yaml(text)).spec.algorithm.name == "icarl"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken
