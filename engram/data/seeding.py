"""Random numbers of the data plane: each purpose has its own stream, derived from the job's seed by SHA-256.

There is no global generator and no state to save: who asks first, or how often, changes nothing. The streams
are numpy's `RandomState`, which numpy has frozen (NEP 19), unlike `Generator`, whose methods may give other
numbers in a later release: workers with different numpy versions must agree on the split.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def random_state(seed: int, *purpose: str | int) -> np.random.RandomState:
    """Return a fresh stream for `purpose`, such as `("dirichlet", task)`; equal arguments, equal numbers."""
    text = json.dumps(["engram.data", seed, *purpose], separators=(",", ":"))
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
    return np.random.RandomState(words.astype(np.uint32))
