"""The difference between two statuses as a JSON merge patch (RFC 7396). Pure.

A merge patch removes a key only where it says null, so the difference names what is gone. Server-side apply
would remove by itself, but writes every field's ownership into managedFields, which doubles the object; a
replacement (PUT) would send all of it each time. The patch carries the resource version that it was computed
from, so it is refused (409) wherever the difference would not be the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram_operator.status.conditions import news_in


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `new` of `old`; empty when they are equal. Lists are replaced."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            inner = difference(before, value)
            if inner:
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


def decisive(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether the phase or a condition changes, and not only figures."""
    return _gist(old) != _gist(new)


def _gist(status: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        status.get("phase"),
        status.get("observedGeneration"),
        sorted(
            (item.get("type", ""), item.get("status", ""), str(news_in(item.get("reason", ""))))
            for item in status.get("conditions") or ()
        ),
    )
