"""A Sedna or Ianvs Estimator as a user has written it: how it is found, made, seeded and asked.

It is any class with `train`, `predict`, `get_weights` and `set_weights`; `load`, `save` and
`helper_function` are used where they are there. Nothing of Sedna's library is needed for that.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.seeding import random_state
from engram.errors import ConfigurationError
from engram.federation.messages import Tensors
from engram.spec import FederatedIncrementalJob
from engram.spec.dotted import is_dotted, load_dotted, own_code

FIELD = "spec.model.name"
NEEDED = ("train", "predict", "get_weights", "set_weights")
BATCH = 256
"""Images that `predict` gets at once."""


def estimator_class(job: FederatedIncrementalJob) -> type | None:
    """Return the Estimator that `spec.model.name` names, None for a model of another kind.

    Raises ConfigurationError when the module does not import or the class is half an Estimator.
    """
    if not is_dotted(job.spec.model.name):
        return None
    found = load_dotted(job.spec.model.name, FIELD)
    if not (inspect.isclass(found) and hasattr(found, "get_weights")):
        return None
    missing = [name for name in NEEDED if not callable(getattr(found, name, None))]
    if missing:
        raise ConfigurationError(
            f"{job.spec.model.name} is an Estimator without {', '.join(missing)}",
            field=FIELD,
            remedy=f"give it {', '.join(NEEDED)} (docs/sedna.md)",
        )
    if job.spec.algorithm.name != "finetune":
        raise ConfigurationError(
            f"{job.spec.algorithm.name} trains engram's networks, and {job.spec.model.name} trains itself",
            field="spec.algorithm.name",
            remedy="write finetune, or name a function that makes a torch network as spec.model.name",
        )
    return found


class Plugin:
    """One Estimator of this process."""

    def __init__(self, job: FederatedIncrementalJob, kind: type) -> None:
        self._path, self._seed = job.spec.model.name, job.spec.seed
        parameters = dict(job.spec.model.parameters)
        with self._code("model"):
            self._estimator: Any = kind(**parameters)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the weights, named by position; floating-point numbers as float32.

        Raises ConfigurationError when `get_weights` returns something else than a list of arrays.
        """
        with self._code("get_weights"):
            listed = self._estimator.get_weights()
        if not isinstance(listed, list | tuple) or not listed:
            raise self._odd(f"get_weights returned {type(listed).__name__}, not a list of arrays")
        return {f"w{index}": self._array(part, index) for index, part in enumerate(listed)}

    def set_weights(self, weights: Tensors) -> None:
        """Give it weights as `weights` returned them: a list of arrays of its own."""
        with self._code("set_weights"):
            self._estimator.set_weights([np.array(array) for array in weights.values()])

    def train(self, data: Any, options: Mapping[str, Any], *seed: str | int) -> dict[str, Any]:
        """Train, with those of `options` that its `train` takes; return what it returned, as a mapping."""
        with self._code("train", *seed):
            found = self._estimator.train(data, **_taken(self._estimator.train, options))
        return dict(found) if isinstance(found, Mapping) else {}

    def predictions(self, images: NDArray[np.float32], seen: Sequence[int]) -> NDArray[np.int64]:
        """Return a label id for each image: what `predict` says, or the best of its scores of `seen`."""
        found = [self._predict(images[start : start + BATCH], seen) for start in range(0, len(images), BATCH)]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _predict(self, images: NDArray[np.float32], seen: Sequence[int]) -> NDArray[np.int64]:
        with self._code("predict"):
            said = np.asarray(self._estimator.predict(images))
        if said.ndim == 2 and said.shape[1] == 1:
            said = said[:, 0]
        if len(said) != len(images) or said.ndim not in (1, 2) or said.dtype.kind not in "iuf":
            raise self._odd(
                f"predict returned shape {said.shape} of {said.dtype} for {len(images)} images: return a "
                "label id or the scores of all classes for each"
            )
        if said.ndim == 1:
            return said.astype(np.int64)
        rows = np.array([label for label in seen if label < said.shape[1]], np.int64)
        best: NDArray[np.int64] = rows[said[:, rows].argmax(axis=1)]
        return best

    def help(self, info: Mapping[str, Any]) -> None:
        """Give it what the aggregation's `helper_function` made of its last round."""
        if callable(getattr(self._estimator, "helper_function", None)):
            with self._code("helper_function"):
                self._estimator.helper_function(dict(info))

    def load(self, path: str) -> None:
        """Let it read a pretrained model, if it can."""
        if callable(getattr(self._estimator, "load", None)):
            with self._code("load"):
                self._estimator.load(path)

    def save(self, path: str) -> None:
        """Let it write the model it holds, if it can."""
        if callable(getattr(self._estimator, "save", None)):
            with self._code("save"):
                self._estimator.save(path)

    def _array(self, part: object, index: int) -> NDArray[Any]:
        try:
            array = np.asarray(part)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind not in "iufb":
            raise self._odd(f"get_weights()[{index}] is no array of numbers")
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def _odd(self, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {text}", field=FIELD)

    @contextmanager
    def _code(self, *seed: str | int) -> Iterator[None]:
        """Run the user's code with the global generators seeded: it knows of no others."""
        state = random_state(self._seed, "estimator", *seed)
        random.seed(int(state.randint(2**31)))
        np.random.seed(int(state.randint(2**31)))
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.manual_seed(int(state.randint(2**31)))
        with own_code(self._path, FIELD):
            yield


def _taken(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that `function` has parameters for, all where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(options)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in options.items() if name in names}
