"""The table of docs/faults.md is the committed measurement."""

import json
from pathlib import Path

from benchmarks.faults import line

ROOT = Path(__file__).parents[2]


def test_the_table_is_the_committed_measurement() -> None:
    page = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs/benchmark/faults.json").read_text(encoding="utf-8"))

    assert measured["command"] in page
    missing = [line(row) for row in measured["rows"] if line(row) not in page]
    assert not missing, "write into docs/faults.md:\n" + "\n".join(missing)
    assert len(measured["rows"]) == 14
