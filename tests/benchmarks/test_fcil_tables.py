"""What the benchmark of algorithms makes of its rows: differences, bars, the page and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pytest

from benchmarks.fcil import bars, figures, page
from benchmarks.fcil.bars import Bar, Bound, Gap, Margin
from benchmarks.fcil.cells import cells_of
from benchmarks.fcil.figures import draw
from benchmarks.fcil.rows import load
from benchmarks.fcil.table import Comparison, Table, comparisons
from benchmarks.fcil.variants import (
    BENCHMARKS,
    CEILING,
    OURS,
    VARIANTS,
)
from engram.report.png import STYLE
from tests.benchmarks.fcil_rows import FASHION, row, rows

ROOT = Path(__file__).parents[2]


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

    def test_rows_of_another_processor_are_named_and_their_seconds_marked(self) -> None:
        there = [row("finetune, BatchNorm", seed, 0.2, cpu="another") for seed in range(2)]
        facts = dict.fromkeys(("command", "cores", "engram", "python", "torch", "time"), "")
        text = page.section(facts, [*rows("replay", 0.7, 0.7, 0.7), *there], FASHION.name, [])
        assert "50.0 s of processor time" in text
        assert "on a processor, except\non another: finetune, BatchNorm.\n" in text
        assert "CPU seconds marked † are not to be compared with the others." in text
        assert "| 2.0 | 10.0 † | 2 |" in text
        assert "| 2.0 | 10.0 | 3 |" in text

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
            dict.fromkeys(("command", "cores", "engram", "python", "torch", "time"), ""),
            [*rows("replay", 0.7, 0.7, 0.7), *foreign],
            FASHION.name,
            [],
        )
        assert "| semifci - replay | the splits of seed 0 differ: elsewhere and split 0 |" in text

    def test_the_pictures_are_drawn(self, tmp_path: Path) -> None:
        names = [path.name for path in draw(tmp_path, self.table)]
        assert names == ["fashion-fcil-20-labels.png", "fashion-fcil-20-forgetting.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())

    def test_a_legend_of_all_variants_is_inside_its_picture(self) -> None:
        names = [variant.name for variant in VARIANTS if not variant.ablates]
        table = Table(FASHION.name, [line for name in names for line in rows(name, 0.7, 0.8)])
        with matplotlib.rc_context(STYLE):
            for figure in (figures._over_ratios(table), figures._over_forgetting(table, 0.2)):
                figure.canvas.draw()
                box = figure.legends[0].get_window_extent()
                assert box.y0 >= 0, box
                assert box.y1 <= figure.bbox.y1, box


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
    cells = cells_of(benchmark, VARIANTS, benchmark.ratios, benchmark.seeds)
    assert {one.key for one in found} == {cell.key for cell in cells}, "the named command makes other rows"
