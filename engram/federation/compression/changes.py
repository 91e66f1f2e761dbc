"""The change of a whole model, packed tensor by tensor into one table that may travel.

    "<place of the tensor in the model>/<part>" -> array

Tensors that are no plain float32 numbers go as they are (part r): counters, and the running statistics of
normalisation layers, whose variances must not become negative. Orders say nothing of unchanged tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.fedavg import PLAIN_SUFFIXES
from engram.federation.compression.arrays import (
    Float16,
    Int8,
    Malformed,
    Method,
    Parts,
    TopK,
    Values,
)
from engram.federation.messages import EMPTY, Tensors

RAW = "r"
METHODS: tuple[Method, ...] = (Float16(), Int8(), TopK(None))
"""What a tensor of an order may be packed by; its parts tell which."""
ROW_BYTES = 64
"""Most bytes that the table's row of a part and its padding take."""


def is_packed(name: str, array: NDArray[Any]) -> bool:
    """Return whether changes of a model's tensor are packed, not sent as they are."""
    return array.dtype == np.float32 and array.size > 0 and not name.endswith(PLAIN_SUFFIXES)


# Upwards: a worker's update.


def pack_update(weights: Tensors, model: Tensors, owed: Tensors, method: Method) -> tuple[Tensors, Tensors]:
    """Return the table of what leads from `model` to `weights`, and what is owed after it by tensor.

    `owed` is what earlier updates did not say; tensors of which there are other shapes now count as far as
    they overlap. An update that does not fit the model is returned as it is: the aggregator says what is
    wrong with it.
    """
    if not _alike(weights, model):
        return weights, EMPTY
    table: dict[str, NDArray[Any]] = {}
    left: dict[str, NDArray[Any]] = {}
    for place, (name, before) in enumerate(model.items()):
        if not is_packed(name, before):
            table[f"{place}/{RAW}"] = weights[name]
            continue
        change = difference(weights[name], before)
        if name in owed:
            change += overlap(owed[name], before.shape).reshape(-1)
        parts = method.pack(change)
        table |= {f"{place}/{part}": array for part, array in parts.items()}
        if method.feeds_back:
            left[name] = _unsaid(change, parts, method).reshape(before.shape)
    return table, left


def unpack_update(table: Tensors, model: Tensors, method: Method) -> dict[str, NDArray[Any]]:
    """Return the weights that a worker's table leads to from `model`. Raises Malformed."""
    by_place = _by_place(table, len(model))
    weights: dict[str, NDArray[Any]] = {}
    for place, (name, before) in enumerate(model.items()):
        parts = by_place.get(place, EMPTY)
        wanted = method.parts if is_packed(name, before) else frozenset(RAW)
        if parts.keys() != wanted:
            raise Malformed("shape", f"{name}: the parts are {_listed(parts)}, not {_listed(wanted)}")
        if wanted == method.parts:
            weights[name] = moved(name, before, parts, method)
            continue
        weights[name] = parts[RAW]
    return weights


def most_bytes(model: Tensors, method: Method) -> int:
    """Return the most bytes that an update of `model` takes, its table included."""
    total = 0
    for name, array in model.items():
        packed = is_packed(name, array)
        total += method.bytes_of(array.size) if packed else array.nbytes
        total += ROW_BYTES * (len(method.parts) if packed else 1)
    return total


# Downwards: orders.


def unpack_order(table: Tensors, model: Tensors) -> dict[str, NDArray[Any]]:
    """Return the weights that an order's table leads to from `model`, read-only as both are.

    Raises Malformed.
    """
    by_place = _by_place(table, len(model))
    weights: dict[str, NDArray[Any]] = {}
    for place, (name, before) in enumerate(model.items()):
        parts = by_place.get(place, EMPTY)
        if not parts:
            weights[name] = before
        elif parts.keys() == {RAW}:
            weights[name] = parts[RAW]
        else:
            fitting = [method for method in METHODS if method.parts == parts.keys()]
            if not fitting or before.dtype != np.float32:
                raise Malformed("shape", f"{name}: the parts are {_listed(parts)}")
            weights[name] = moved(name, before, parts, fitting[0])
            weights[name].flags.writeable = False
    return weights


# Both ways.


def moved(name: str, before: NDArray[Any], parts: Parts, method: Method) -> NDArray[Any]:
    """Return a tensor after the change that `parts` say. Raises Malformed."""
    try:
        values = method.unpack(parts, before.size)
    except Malformed as error:
        raise Malformed(error.reason, f"{name}: {error}") from error
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by who uses it
        values += before.reshape(-1)
    return values.reshape(before.shape)


def difference(after: NDArray[Any], before: NDArray[Any]) -> Values:
    """Return the flat change of a tensor of float32, an array of its own."""
    with np.errstate(over="ignore", invalid="ignore"):  # as above
        change: Values = np.subtract(after, before, dtype=np.float32)
    return change.reshape(-1)


def overlap(kept: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tensor of `shape` with the values of `kept` where both have some, else zeros: a head that has
    grown owes nothing for its new rows.
    """
    if kept.shape == shape:
        return np.asarray(kept, np.float32)
    grown = np.zeros(shape, np.float32)
    if kept.ndim == len(shape):
        both = tuple(slice(0, min(old, new)) for old, new in zip(kept.shape, shape, strict=True))
        grown[both] = kept[both]
    return grown


def _unsaid(change: Values, parts: Parts, method: Method) -> Values:
    """Return what `parts` do not say of a change; nothing of one that is not finite: it will be refused."""
    try:
        return change - method.unpack(parts, change.size)
    except Malformed:
        return np.zeros_like(change)


def _alike(weights: Tensors, model: Tensors) -> bool:
    return weights.keys() == model.keys() and all(
        weights[name].dtype == array.dtype and weights[name].shape == array.shape
        for name, array in model.items()
    )


def _by_place(table: Tensors, tensors: int) -> Mapping[int, Parts]:
    """Return the parts of each tensor. Raises Malformed for names that no table has."""
    places = {str(place): place for place in range(tensors)}
    found: dict[int, dict[str, NDArray[Any]]] = {}
    for key, array in table.items():
        place, _, part = key.partition("/")
        if place not in places:
            raise Malformed("shape", f"{key[:80]!r} is no part of a packed model of {tensors} tensors")
        found.setdefault(places[place], {})[part] = array
    return found


def _listed(parts: Mapping[str, Any] | frozenset[str]) -> str:
    return ", ".join(sorted(parts))[:80] or "none"
