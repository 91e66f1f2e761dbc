"""The aggregator's side of compression: the global model moves by what a packed order can say.

The model of a round is what its order leads to, bit for bit: for a worker that holds the round before, which
gets the packed change, and for a newcomer, which gets the model as it is. What a change leaves unsaid is owed
and goes with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engram.federation.compression.arrays import Int8, Malformed, Method, Parts, TopK
from engram.federation.compression.changes import RAW, difference, is_packed, moved, overlap
from engram.federation.messages import Tensors
from engram.federation.tensors import frozen, same_tensors
from engram.spec.training import Aggregation


class Step(NamedTuple):
    """How a tensor of the model came about from the one that it had before."""

    before: NDArray[Any]
    parts: Parts


class Model(dict[str, NDArray[Any]]):
    """Read-only weights that know the packed changes which led to them."""

    def __init__(self, weights: Tensors, steps: Mapping[str, Step]) -> None:
        super().__init__(weights)
        self.steps = steps
        self.plain: Tensors = dict(weights)
        """The same weights without the changes, which hold on to the tensors before."""

    def since(self, other: Tensors) -> Tensors | None:
        """Return the table that leads from `other` to this model, for `changes.unpack_order`.

        Tensors are the same when they are the same objects. None: it is another model altogether.
        """
        if list(other) != list(self):
            return None
        table: dict[str, NDArray[Any]] = {}
        for place, (name, array) in enumerate(self.items()):
            step = self.steps.get(name)
            if array is other[name]:
                continue
            packed = step is not None and step.before is other[name]
            parts = step.parts if step is not None and packed else {RAW: array}
            table |= {f"{place}/{part}": piece for part, piece in parts.items()}
        return table


class Broadcast:
    """Makes each round's model, and remembers what it owes."""

    def __init__(self, aggregation: Aggregation, method: Method) -> None:
        self._aggregation, self._method = aggregation, method
        self._owed: dict[str, NDArray[np.float32]] = {}

    def moved(self, before: Tensors, after: Tensors, updates: int) -> Model:
        """Return the model that a round with `updates` updates leads to: `after`, as far as can be said.

        Both are read-only and alike but for their values.
        """
        weights: dict[str, NDArray[Any]] = {}
        steps: dict[str, Step] = {}
        for name, old in before.items():
            new = after[name]
            if not is_packed(name, old):
                weights[name] = old if _same(old, new) else new
                continue
            change = difference(new, old)
            if name in self._owed:
                change += overlap(self._owed[name], old.shape).reshape(-1)
            method = self._method_for(old.size, updates)
            parts = method.pack(change)
            try:
                weights[name] = moved(name, old, parts, method)
            except Malformed:  # a rule of the user's own made what is not finite: that is to be seen
                weights[name] = new
                self._owed.pop(name, None)
                continue
            weights[name].flags.writeable = False
            steps[name] = Step(old, parts)
            self._owed[name] = (change - difference(weights[name], old)).reshape(old.shape)
        return Model(weights, steps)

    def replaced(self, before: Tensors, after: Tensors) -> Model:
        """Return the model that a learner has made of `before`: a grown head, weights that were corrected.

        Nothing is owed any more for a tensor that has other values where both have some.
        """
        weights: dict[str, NDArray[Any]] = {}
        steps = before.steps if isinstance(before, Model) else {}
        for name, new in after.items():
            old = before.get(name)
            weights[name] = old if old is not None and _same(old, new) else frozen({name: new})[name]
            if name in self._owed and (old is None or not _grown(old, new)):
                del self._owed[name]
        kept = {name: step for name, step in steps.items() if weights.get(name) is before.get(name)}
        return Model(weights, kept)

    def state(self) -> Tensors:
        """Return what must survive a restart of the aggregator."""
        return dict(self._owed)

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned."""
        self._owed = {name: np.array(array, np.float32) for name, array in state.items()}

    def _method_for(self, size: int, updates: int) -> Method:
        """Return how a tensor's change goes down: after top-k updates as many values as they have moved at
        most, but not in more bytes than int8 takes.
        """
        if self._aggregation.compression != "topk":
            return self._method
        sparse, dense = TopK(min(1.0, self._aggregation.topk_share * updates)), Int8()
        return sparse if sparse.bytes_of(size) < dense.bytes_of(size) else dense


def _same(old: NDArray[Any], new: NDArray[Any]) -> bool:
    """Return whether two tensors have the same bits."""
    return old is new or same_tensors({"": old}, {"": new})


def _grown(old: NDArray[Any], new: NDArray[Any]) -> bool:
    """Return whether `new` is `old`, or `old` with more values at its ends."""
    if old is new:
        return True
    if old.ndim != new.ndim or any(size > more for size, more in zip(old.shape, new.shape, strict=True)):
        return False
    return bool(np.array_equal(new[tuple(slice(0, size) for size in old.shape)], old))
