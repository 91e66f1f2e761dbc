"""Merges a job's `podTemplate` into ours: a documented subset of Kubernetes' strategic merge.

Maps merge. Lists merge item by item where the item has a key (`LIST_KEYS`); tolerations are added to ours;
every other list replaces. null removes. Directives (`$patch` and its like) are refused: what they would say
can be said without. What the result must still have is `guard`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engram.errors import ConfigurationError
from engram.spec.problems import shown
from engram_operator.model import Object

LIST_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
"""Lists whose items are merged -> the key that tells which item is meant."""
ADDED = ("tolerations",)
"""Lists that are added to ours."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], field: str) -> Object:
    """Return `base` with `patch` merged in; neither is changed.

    Raises ConfigurationError naming the place below `field` where a directive stands, an item has no key, or
    a list or mapping is expected and something else was written.
    """
    merged = dict(base)
    for key, value in patch.items():
        place = f"{field}.{key}"
        if key.startswith("$"):
            raise ConfigurationError(
                "is a patch directive", field=place, remedy="write the values you want, or null to remove one"
            )
        if value is None:
            merged.pop(key, None)
            continue
        ours = merged.get(key)
        if ours is not None:
            _check_kind(value, ours, place)
        if isinstance(value, Mapping):
            merged[key] = merge(ours or {}, value, place)
        elif isinstance(value, list):
            merged[key] = _merge_list(key, ours or [], value, place)
        else:
            merged[key] = value
    return merged


def _merge_list(key: str, base: Sequence[Any], patch: Sequence[Any], field: str) -> list[Any]:
    items = [_cleaned(item, f"{field}[{index}]") for index, item in enumerate(patch)]
    if key in ADDED:
        return [*base, *(item for item in items if item not in base)]
    if key not in LIST_KEYS:
        return items
    name = LIST_KEYS[key]
    merged = list(base)
    for index, item in enumerate(patch):
        place = f"{field}[{index}]"
        if not isinstance(item, Mapping) or not isinstance(item.get(name), str | int):
            raise ConfigurationError(
                f"has no {name}", field=place, remedy=f"write {name}: which item of {key} it is"
            )
        at = next((at for at, ours in enumerate(merged) if ours[name] == item[name]), None)
        if at is None:
            merged.append(items[index])
        else:
            merged[at] = merge(merged[at], item, place)
    return merged


def _cleaned(value: Any, field: str) -> Any:
    """Return a value that has nothing to merge with: without its nulls, directives refused."""
    if isinstance(value, Mapping):
        return merge({}, value, field)
    if isinstance(value, list):
        return [_cleaned(item, f"{field}[{index}]") for index, item in enumerate(value)]
    return value


def _check_kind(value: object, ours: object, field: str) -> None:
    """Refuse a mapping for a list, a word for a mapping and the like."""
    wanted = _kind(ours)
    if _kind(value) != wanted:
        raise ConfigurationError(
            f"is {shown(value)}, not {wanted}", field=field, remedy="write it as in a Kubernetes pod"
        )


def _kind(value: object) -> str:
    return (
        "a mapping"
        if isinstance(value, Mapping)
        else "a list"
        if isinstance(value, list)
        else "a single value"
    )
