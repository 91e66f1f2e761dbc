"""Random numbers without state: every draw takes a generator seeded from what it is for, so that a restarted
worker draws what it would have drawn, and no worker's draws depend on another's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, purpose: str, *keys: str | int) -> int:
    """Return 63 bits of SHA-256 over (seed, purpose, keys); equal on every machine and Python version."""
    text = json.dumps([seed, purpose, *keys], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *keys: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose; equal arguments give equal numbers."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, *keys))


@contextmanager
def global_generator(device: torch.device, seed: int, purpose: str, *keys: str | int) -> Iterator[None]:
    """Seed torch's global generator inside the block and restore it afterwards.

    For code that cannot be handed a generator: `torch.nn` initialisation, dropout, a user's own module.
    """
    value = seed_of(seed, purpose, *keys)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it also notes the seed, with a traceback, for every kind of device that this
        # process has not used yet, which takes longer than what is seeded here.
        torch.default_generator.manual_seed(value)
        if device.type == "cuda":
            torch.cuda.manual_seed(value)
        yield
