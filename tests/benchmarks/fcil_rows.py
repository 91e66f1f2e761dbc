"""Rows of a benchmark that nobody has run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.fcil.rows import Row
from benchmarks.fcil.variants import benchmark_called

FASHION = benchmark_called("fashion-fcil-20")


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
        cpu="a processor",
    )
    return replace(found, **changes)


def rows(variant: str, *accuracies: float, ratio: float = 0.2) -> list[Row]:
    return [row(variant, seed, accuracy, ratio) for seed, accuracy in enumerate(accuracies)]
