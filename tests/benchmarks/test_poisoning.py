"""One of five workers lies: robust rules and clipping hold the accuracy, the plain average does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.poisoning import RULES, accuracy, line

ROOT = Path(__file__).parents[2]
ROUNDS = 8
ROBUST = [rule for rule in RULES if rule != "fedavg"]


@pytest.fixture(scope="module")
def clean() -> float:
    """What fedavg reaches when nobody lies."""
    found = accuracy(RULES["fedavg"], "none", ROUNDS)
    assert found > 0.85
    return found


@pytest.mark.parametrize("rule", ROBUST)
def test_a_robust_rule_stays_near_the_clean_run(rule: str, clean: float) -> None:
    assert accuracy(RULES[rule], "sign flipped", ROUNDS) > clean - 0.08


def test_the_plain_average_falls_to_chance(clean: float) -> None:
    assert accuracy(RULES["fedavg"], "sign flipped", ROUNDS) < 0.3 < clean


def test_the_table_is_the_committed_measurement() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs/benchmark/poisoning.json").read_text(encoding="utf-8"))
    assert measured["command"] in page
    assert [row["rule"] for row in measured["rows"]] == list(RULES)
    missing = [line(row) for row in measured["rows"] if line(row) not in page]
    assert not missing, "write into docs/security.md:\n" + "\n".join(missing)
