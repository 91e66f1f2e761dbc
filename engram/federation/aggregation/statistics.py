"""Statistics of normalisation layers: what the workers' means and variances say of all their samples.

With shares p_k the pooled mean is m = sum p_k m_k and the pooled variance sum p_k (v_k + m_k^2) - m^2; the
plain mean of the variances would leave out that the means differ, which they do wherever workers hold
different classes. Rules that take means therefore sum second moments in the place of variances. By torch's
names a `running_var` belongs to the `running_mean` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engram.federation.messages import Tensors

MEAN, VARIANCE = "running_mean", "running_var"


def variances(weights: Tensors) -> dict[str, str]:
    """Return the name of each variance in `weights` with the name of the mean that belongs to it."""
    found = {}
    for name, array in weights.items():
        mean = weights.get(partner := name.removesuffix(VARIANCE) + MEAN)
        paired = name.endswith(VARIANCE) and mean is not None and mean.shape == array.shape
        if paired and array.dtype.kind == "f":
            found[name] = partner
    return found


def with_second_moments(weights: Tensors, means: Mapping[str, str]) -> Tensors:
    """Return `weights` with v + m^2, in float64, in the place of every variance v that `means` names."""
    if not means:
        return weights
    moments = {
        name: weights[name] + np.square(weights[mean], dtype=np.float64) for name, mean in means.items()
    }
    return {**weights, **moments}


def largest_moments(magnitudes: Mapping[str, float], means: Mapping[str, str]) -> Mapping[str, float]:
    """Return `magnitudes` of tensors with a bound of v + m^2 in the place of every variance's."""
    return {**magnitudes, **{name: magnitudes[name] + magnitudes[mean] ** 2 for name, mean in means.items()}}


def pooled_variance(second: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return second - mean^2, the variance to the averaged second moment; never below 0 by a rounding."""
    variance: NDArray[np.float64] = np.maximum(second - np.square(mean), 0.0)
    return variance
