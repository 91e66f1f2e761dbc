"""How deeply a job nests: the API server takes 10,000 levels, and recursion ends at a tenth of that.

Whoever may create a job writes its untyped parts (podTemplate, parameters) as deep as the server allows, so
what walks a job asks here first. Nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 100
"""Deepest nesting of mappings and lists in a job; those of the document itself are level 0."""


def too_deep(value: Any) -> tuple[str | int, ...] | None:
    """Return the path of the first mapping or list of `value` below level `DEEPEST`; None: there is none."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, found = waiting.pop()
        if not isinstance(found, Mapping | list):
            continue
        if len(path) > DEEPEST:
            return path
        inner = found.items() if isinstance(found, Mapping) else enumerate(found)
        waiting.extend(((*path, key), below) for key, below in inner)
    return None
