"""How updates become the next global model: one rule a file, one interface, `build` to get one by name."""

from engram.federation.aggregation.base import Aggregation, OutOfRange
from engram.federation.aggregation.build import build

__all__ = ["Aggregation", "OutOfRange", "build"]
