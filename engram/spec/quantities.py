"""Kubernetes quantities (`500m`, `2Gi`, `1e3`) with the grammar of apimachinery's resource.Quantity."""

from __future__ import annotations

import re
from decimal import Decimal

_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_FACTORS: dict[str, Decimal] = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
EXAMPLES = "write a quantity such as 500m, 2, 512Mi or 1Gi"
"""Remedy for a bad quantity."""

_MISTAKES = {
    "gb": "G or Gi",
    "gib": "Gi",
    "mb": "M or Mi",
    "mib": "Mi",
    "kb": "k or Ki",
    "kib": "Ki",
    "tb": "T or Ti",
    "tib": "Ti",
}


def parse_quantity(value: str | int | float) -> Decimal:
    """Return the quantity in base units (cores, bytes, pieces), exact.

    Raises ValueError, whose text says what to write, for anything that Kubernetes would refuse.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(EXAMPLES)
    text = value if isinstance(value, str) else repr(value)
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(_advice(text))
    if found["exponent"]:
        return Decimal(found["number"]).scaleb(int(found["exponent"]))
    return Decimal(found["number"]) * _FACTORS[found["suffix"] or ""]


def _advice(text: str) -> str:
    """Say what to write instead of a wrong unit."""
    if _PATTERN.fullmatch(compact := text.replace(" ", "")):
        return f"write {compact} without a space"
    unit = text.lstrip("+-.0123456789")
    right = _MISTAKES.get(unit.lower())
    if right is None and unit == "K":
        right = "k or Ki"
    return f"Kubernetes writes {right} for {unit}" if right else EXAMPLES
