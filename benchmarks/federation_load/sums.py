"""The aggregator's passes over an update, compiled and by numpy; the command is benchmarks/sums.py."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

from benchmarks.federation_load.roles import SAMPLES, model_of
from engram.federation import kernel
from engram.federation.aggregation.exact import ExactSum
from engram.federation.messages import Tensors
from engram.federation.tensors import magnitudes

WAYS = {"numpy": False, "compiled": True}


def measure(parameters: int, repeat: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each pass by each way."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    model = model_of(parameters)
    sums: dict[str, ExactSum] = {}
    for way in list(WAYS) * repeat:
        kernel.COMPILED = WAYS[way]  # of this process only, which ends after it
        if way not in sums:
            sums[way] = ExactSum(model, SAMPLES * 2 * (repeat + 1))
            sums[way].add(SAMPLES, model)  # memory that is there, as in every round but the first
        for name, work in _passes(sums[way], model).items():
            began = time.perf_counter()
            work()
            found[name][way].append(1e3 * (time.perf_counter() - began))
    return {
        name: {way: statistics.median(times) for way, times in ways.items()} for name, ways in found.items()
    }


def _passes(total: ExactSum, model: Tensors) -> dict[str, Callable[[], object]]:
    return {
        "largest magnitude": lambda: magnitudes(model),
        "add an update": lambda: total.add(SAMPLES, model),
        "mean": lambda: [total.rounded_mean(name, array.dtype) for name, array in model.items()],
    }


def main(description: str) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    if not kernel.COMPILED:
        raise SystemExit("engram was installed without a compiler: there is nothing to compare (README)")
    print(f"{options.parameters:,} parameters, medians of {options.repeat}, milliseconds\n")
    print(f"{'':20} {'numpy':>8} {'compiled':>9} {'ratio':>6}")
    for name, ways in measure(options.parameters, options.repeat).items():
        ratio = ways["compiled"] / ways["numpy"]
        print(f"{name:20} {ways['numpy']:8.3f} {ways['compiled']:9.3f} {ratio:6.2f}")
