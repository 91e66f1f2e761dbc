"""Adapts an aggregation class of Sedna's or Ianvs' kind: `aggregate(clients)` over lists of arrays.

Such a class wants every update of a round at once. They wait on the checkpoint's volume, and the arrays that
it gets are read from there when it looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import ConfigurationError
from engram.federation.aggregation.base import Aggregation
from engram.federation.aggregation.spool import Spool
from engram.federation.messages import EMPTY, Tensors, Update
from engram.spec.dotted import own_code

FIELD = "spec.aggregation.name"
MARK = "helper/"


class Client:
    """One worker's update as `aggregate` sees it."""

    def __init__(self, num_samples: int, weights: list[NDArray[Any]]) -> None:
        self.num_samples, self.weights = num_samples, weights


class ListedAggregation(Aggregation):
    """Runs such a class as a rule; clients come in the order of their workers' names."""

    def __init__(self, path: str, own: Any) -> None:
        """`path` names the user's class in messages, `own` is an object of it."""
        self._path, self._own = path, own
        self._weights: Tensors = EMPTY
        self._spool = Spool()
        self._samples: dict[str, int] = {}
        self._helped: dict[str, dict[str, NDArray[Any]]] = {}
        """What `helper_function` has for each worker, until the next round is closed."""

    def keep_in(self, directory: Path) -> None:
        """See `Aggregation.keep_in`."""
        self._spool.keep_in(directory)

    def begin(self, weights: Tensors, total_samples: int) -> None:
        """See `Aggregation.begin`."""
        self._weights, self._samples = weights, {}
        self._spool.begin(weights)

    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """See `Aggregation.add`."""
        self._spool.add(worker, weights)
        self._samples[worker] = samples

    def finish(self) -> Tensors:
        """See `Aggregation.finish`. Raises ConfigurationError when something else comes back than a model."""
        samples = [self._samples[worker] for worker in sorted(self._samples)]
        clients = [Client(*pair) for pair in zip(samples, self._spool.updates(), strict=True)]
        with own_code(self._path, FIELD):
            listed = self._own.aggregate(clients)
        if not isinstance(listed, list | tuple) or len(listed) != len(self._weights):
            raise self._odd(f"aggregate returned {type(listed).__name__}, not {len(self._weights)} arrays")
        result = {
            name: self._like(part, like, index)
            for index, (part, (name, like)) in enumerate(zip(listed, self._weights.items(), strict=True))
        }
        self._weights, self._samples = EMPTY, {}
        self._spool.clear()
        return result

    def close_round(self, updates: Mapping[str, Update]) -> None:
        """Ask `helper_function`, where there is one, about what each worker's training returned."""
        self._helped = {}
        helper = getattr(self._own, "helper_function", None)
        if not callable(helper):
            return
        for worker, update in sorted(updates.items()):
            info: dict[str, Any] = {name: _plain(array) for name, array in update.info.items()}
            with own_code(self._path, FIELD):
                said = helper({"num_samples": update.samples, **info})
            if said is not None:
                self._helped[worker] = self._arrays(said)

    def shared(self, worker: str) -> Tensors:
        """See `Aggregation.shared`."""
        return self._helped.get(worker, EMPTY)

    def state(self) -> Tensors:
        """See `Aggregation.state`: what the helper has for the next round. The class's own fields are its own
        business and start afresh.
        """
        return {
            f"{MARK}{worker}/{name}": array
            for worker, arrays in self._helped.items()
            for name, array in arrays.items()
        }

    def restore(self, state: Tensors) -> None:
        """See `Aggregation.restore`."""
        self._helped = {}
        for key, array in state.items():
            worker, _, name = key.removeprefix(MARK).partition("/")
            self._helped.setdefault(worker, {})[name] = np.array(array)

    def _like(self, part: object, like: NDArray[Any], index: int) -> NDArray[Any]:
        try:
            array = np.asarray(part)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind not in "iufb" or array.shape != like.shape:
            raise self._odd(f"aggregate()[{index}] has shape {list(array.shape)}, not {list(like.shape)}")
        return array.astype(like.dtype)

    def _arrays(self, said: object) -> dict[str, NDArray[Any]]:
        if not isinstance(said, Mapping):
            raise self._odd(f"helper_function returned {type(said).__name__}, not a mapping")
        arrays = {str(name): np.asarray(value) for name, value in said.items()}
        odd = [name for name, array in arrays.items() if array.dtype.kind not in "iufb" or "/" in name]
        if odd:
            raise self._odd(f"helper_function returned {odd[0]!r}, which is no array of numbers")
        return arrays

    def _odd(self, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {text}", field=FIELD)


def is_listed(kind: object) -> bool:
    """Return whether `kind` is a class such as Sedna's: it has `aggregate`, and is none of engram's own."""
    return (
        isinstance(kind, type)
        and not issubclass(kind, Aggregation)
        and callable(getattr(kind, "aggregate", None))
    )


def _plain(array: NDArray[Any]) -> Any:
    """Return a number as a number, anything else as the array it is."""
    return array.item() if array.ndim == 0 else np.array(array)
