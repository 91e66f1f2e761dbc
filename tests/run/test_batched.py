"""`engram run --batched` reaches the accuracy of the run without it.

On average: training carries a difference in the last digit far, and single seeds end up to three points
apart, either way.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from engram.cli import app

DIGITS = Path(__file__).resolve().parents[2] / "examples/01-digits.yaml"


def accuracies(algorithm: str, seeds: int, out: Path, *options: str) -> list[float]:
    """Run digits at so many seeds, from 0, and return the final accuracies."""
    found = []
    for seed in range(seeds):
        directory = out / str(seed)
        arguments = [
            *("run", str(DIGITS), "--transport", "in-process", "--quiet", "--out", str(directory)),
            *("--no-figures", *options),
            *("--set", "training.localSteps=30", "--set", f"seed={seed}"),
            *("--set", f"algorithm.name={algorithm}"),
        ]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        found.append(json.loads((directory / "report.json").read_text())["metrics"]["accuracy"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("algorithm", "seeds"), [("replay", 6), ("icarl", 3)])
def test_batched_accuracy_is_within_a_point(algorithm: str, seeds: int, tmp_path: Path) -> None:
    alone = fmean(accuracies(algorithm, seeds, tmp_path / "alone"))
    together = fmean(accuracies(algorithm, seeds, tmp_path / "together", "--batched"))
    assert alone > 0.8
    assert abs(together - alone) <= 0.01, (alone, together)
