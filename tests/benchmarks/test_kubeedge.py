"""The table of docs/kubeedge.md is the committed measurement."""

import json
from pathlib import Path

from benchmarks.kubeedge_nodes import BEGIN, END, ROWS, cell, table

ROOT = Path(__file__).parents[2]


def test_the_table_is_the_committed_measurement() -> None:
    page = (ROOT / "docs/kubeedge.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs/benchmark/kubeedge.json").read_text(encoding="utf-8"))

    assert page.partition(BEGIN)[2].partition(END)[0].strip() == table(measured["figures"]).strip()
    assert measured["command"] in page
    for figures in measured["figures"].values():
        assert set(figures) == set(ROWS)


def test_a_figure_is_told_with_its_spread() -> None:
    assert cell([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert cell([31.25]) == "31.2"
    assert cell([1200000.0, 900.0, 45000.0]) == "45,000 (900 to 1,200,000)"
    assert cell([]) == "-"
