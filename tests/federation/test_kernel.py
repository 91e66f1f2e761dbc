"""The compiled passes give numpy's bits, and are there wherever a compiler is."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from engram.federation import kernel
from engram.federation.aggregation.exact import ExactSum
from engram.federation.aggregation.fedavg import FedAvg
from engram.federation.messages import Tensors
from engram.federation.tensors import BLOCK, SMALL, magnitudes

compiled = pytest.mark.skipif(not kernel.COMPILED, reason="engram was built without a compiler")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _round(model: Tensors, updates: list[tuple[int, Tensors]]) -> dict[str, bytes]:
    """Return the bytes of what fedavg makes of a round, and of the magnitudes it goes by."""
    rule = FedAvg()
    rule.begin(model, sum(samples for samples, _ in updates))
    for worker, (samples, update) in enumerate(updates):
        rule.check(samples, magnitudes(update))
        rule.add(str(worker), samples, update)
    return {name: array.tobytes() for name, array in rule.finish().items()}


def _without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "COMPILED", False)


@compiled
@pytest.mark.parametrize("size", [0, 1, 3, SMALL - 1, SMALL + 1, (1 << 16) + 5, BLOCK + 1])
def test_a_round_has_the_same_bits_with_numpy(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(size)
    model: Tensors = {
        "large": draw.normal(size=size).astype(np.float32),
        "small": (draw.normal(size=(3, 5)) * 1e-30).astype(np.float32),
        "scalar": np.array(draw.normal(), np.float32),
        "double": draw.normal(size=7),
        "half": draw.normal(size=9).astype(np.float16),
        "norm.running_mean": draw.normal(size=4).astype(np.float32),
        "norm.running_var": draw.uniform(size=4).astype(np.float32),
        "steps": np.arange(2),
    }
    updates: list[tuple[int, Tensors]] = [
        (samples, {name: (array * (1 + index / 7)).astype(array.dtype) for name, array in model.items()})
        for index, samples in enumerate((1, 37, 100_003))
    ]
    ours = _round(model, updates)
    assert ours == _round(model, updates[::-1])
    _without(monkeypatch)
    assert ours == _round(model, updates)


@compiled
@given(arrays(np.float32, st.integers(0, 40), elements=FINITE), st.integers(1, 2**28))
def test_one_update_has_the_same_bits_with_numpy(term: NDArray[np.float32], samples: int) -> None:
    found = []
    for there in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "COMPILED", there)
            total = ExactSum({"w": term}, samples)
            total.add(samples, {"w": term})
            found.append(total.rounded_mean("w", np.dtype(np.float32)).tobytes())
    assert found[0] == found[1]


@compiled
@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_the_largest_magnitude_is_numpys(term: NDArray[np.float32]) -> None:
    expected = float(np.abs(term).max(initial=0.0)) if np.isfinite(term).all() else math.inf
    assert kernel.largest(term) == expected
    assert magnitudes({"w": term}) == {"w": expected}


@compiled
def test_a_view_with_gaps_and_one_that_is_read_only_are_read_right() -> None:
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    grid.flags.writeable = False
    gaps = grid[:, ::2].T
    total = ExactSum({"w": gaps}, 3)
    total.add(3, {"w": gaps})
    assert np.array_equal(total.rounded_mean("w", np.dtype(np.float32)), gaps)
    assert kernel.largest(gaps) == 22.0


@compiled
def test_numbers_at_odd_addresses_are_read_right() -> None:
    odd = np.frombuffer(bytes(1) + np.arange(1000, dtype=np.float32).tobytes(), np.float32, offset=1)
    assert not odd.flags.aligned
    total = ExactSum({"w": odd}, 3)
    total.add(3, {"w": odd})
    assert np.array_equal(total.rounded_mean("w", np.dtype(np.float32)), odd)
    assert kernel.largest(odd) == 999.0


@compiled
def test_buffers_that_do_not_fit_are_refused() -> None:
    doubles: NDArray[Any] = np.zeros(3)
    floats: NDArray[Any] = np.zeros(3, np.float32)
    for total, term in ((doubles[:2], floats), (floats, floats), (doubles, doubles)):
        with pytest.raises(ValueError, match="as many float64 as float32"):
            kernel.add(total, term, 1, 1.0, begun=True)
    with pytest.raises(ValueError, match="needs float32"):
        kernel.largest(doubles)
    with pytest.raises((TypeError, BufferError)):
        kernel.add(doubles[::2], floats[:2], 1, 1.0, begun=True)
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        kernel.add(frozen, floats, 1, 1.0, begun=True)


def test_the_installation_has_it_wherever_it_can_be_compiled(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    hook = runpy.run_path(str(root / "hatch_build.py"))
    if problem := hook["compile_kernel"](root / hook["SOURCE"], tmp_path / "kernel.so"):
        pytest.skip(problem)
    assert kernel.COMPILED, "make install made none"
