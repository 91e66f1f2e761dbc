"""Sedna's messages: JSON text, checked as something that anybody may have sent, and written as Sedna does.

A message is one JSON object with a `type`; weights are a list of nested lists, in the order of the model's
tensors and without their names. What the library does with each of them is in docs/sedna.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engram.errors import ConfigurationError
from engram.federation.messages import Tensors

CLIENT_LIMIT = 16 * 1024 * 1024
"""A Sedna worker closes its connection at a message above so many bytes, whatever it is told."""
UNKNOWN_MODEL_LIMIT = 32 * 1024 * 1024
"""Largest upload while the model is not known: no more could come back to a worker anyway."""
NUMBER_BYTES, BESIDE_BYTES = 32, 64 * 1024
"""Most bytes of one number with its brackets, and of everything else in an upload."""
MOST_SAMPLES = 2**24
"""Most samples of a worker whose data nobody here knows."""
MOST_ARRAYS = 65_536
NAME_CHARACTERS = 253

CLOSE_BAD_UPDATE = 4005
"""The update cannot be used; the reason says why."""
REASON_BYTES = 120
"""What fits into a closing frame beside its code."""


class Unreadable(Exception):
    """A message that must not be used; `reason` is one of `Rejection`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Subscribe:
    """Up, first on a connection."""

    client_id: str
    """Empty: the server finds a name."""


@dataclass(frozen=True)
class Upload:
    """Up: the result of one local round."""

    client: str
    samples: int
    weights: Sequence[Any]
    """As they came: nested lists of what should be numbers."""
    job_name: str = ""


@dataclass(frozen=True)
class Forged:
    """Up: `recv_weight`, which only an aggregator says."""


Up: TypeAlias = Subscribe | Upload | Forged


def parse(text: str | bytes) -> Up:
    """Return the message in a frame. Raises Unreadable for anything odd."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("protocol", f"no JSON: {str(error)[:60]}") from error
    if not isinstance(value, dict):
        raise Unreadable("protocol", f"a JSON {_kind(value)}, not an object")
    kind = value.get("type")
    if kind == "subscribe":
        return Subscribe(_name(value, "client_id"))
    if kind == "update_weight":
        return _upload(value)
    if kind == "recv_weight":
        return Forged()
    raise Unreadable("protocol", f"unknown type {str(kind)[:40]!r}")


def _upload(value: Mapping[str, Any]) -> Upload:
    data = value.get("data")
    if not isinstance(data, dict):
        raise Unreadable("protocol", "update_weight without data")
    samples, weights = data.get("num_samples"), data.get("weights")
    if isinstance(samples, bool) or not isinstance(samples, int | float) or samples != samples // 1:
        raise Unreadable("norm", f"num_samples is {str(samples)[:20]}, no whole number")
    if samples < 1:
        raise Unreadable("norm", f"num_samples is {int(samples)}, at least 1 is needed")
    if not isinstance(weights, list) or not 0 < len(weights) <= MOST_ARRAYS:
        raise Unreadable("shape", "weights is no list of arrays")
    return Upload(_name(value, "client"), int(samples), weights, _name(value, "job_name"))


def _name(value: Mapping[str, Any], key: str) -> str:
    name = value.get(key, "")
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise Unreadable("protocol", f"{key} is no text of at most {NAME_CHARACTERS} characters")
    return name


def _kind(value: object) -> str:
    return {list: "list", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")


def as_tensors(weights: Sequence[Any], model: Tensors) -> dict[str, NDArray[Any]]:
    """Return nested lists as tensors with the names, dtypes and shapes of `model`; they match by position.

    Without a model they are named by position, in float64. Raises Unreadable; never broadcasts.
    """
    if not model:
        return {f"w{index}": _array(part, f"array {index}", None) for index, part in enumerate(weights)}
    if len(weights) != len(model):
        raise Unreadable("shape", f"{len(weights)} arrays, the model has {len(model)}")
    tensors: dict[str, NDArray[Any]] = {}
    for index, ((name, like), part) in enumerate(zip(model.items(), weights, strict=True)):
        array = _array(part, f"array {index} ({name})", like.dtype)
        if array.shape != like.shape:
            raise Unreadable(
                "shape", f"array {index} ({name}) has shape {list(array.shape)}, not {list(like.shape)}"
            )
        tensors[name] = array
    return tensors


def _array(part: object, where: str, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    try:
        array = np.array(part)
    except (ValueError, OverflowError) as error:
        raise Unreadable("shape", f"{where} is ragged") from error
    if array.dtype.kind not in "iuf":
        raise Unreadable("shape", f"{where} holds something else than numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        # What is too large for the model's type becomes infinite, and is refused as such.
        return array.astype(np.float64 if dtype is None else dtype)


def subscribed(client_id: str) -> str:
    """Return the echo that tells all of a subscription."""
    return _text({"type": "subscribe", "client_id": client_id})


def joined(client_id: str) -> str:
    """Return what the others hear before the echo."""
    return _text({"type": "CLIENT_JOIN", "data": client_id})


@dataclass(frozen=True)
class Head:
    """What a broadcast says beside the weights."""

    client: str
    """Whose upload closed the round."""
    job_name: str
    total_sample: int
    round_number: int
    last: bool


def broadcast(head: Head, weights: Tensors) -> str:
    """Return the message that closes a round for every worker.

    Raises ConfigurationError when it is larger than a Sedna worker takes.
    """
    text = _text(
        {
            "type": "recv_weight",
            "client": head.client,
            "data": {
                "total_sample": head.total_sample,
                "round_number": head.round_number,
                "weights": [shortest(array).tolist() for array in weights.values()],
                "exit_flag": "ok" if head.last else "continue",
            },
            "job_name": head.job_name,
            "round_number": head.round_number,
        }
    )
    if len(text) > CLIENT_LIMIT:
        raise ConfigurationError(
            f"the model is {len(text)} bytes of JSON, and a Sedna worker takes at most {CLIENT_LIMIT}",
            field="spec.protocol",
            remedy="write protocol: engram, or a smaller model",
        )
    return text


def upload(client: str, samples: int, weights: Tensors, job_name: str) -> str:
    """Return a worker's update."""
    arrays = [shortest(array).tolist() for array in weights.values()]
    data = {"num_samples": samples, "weights": arrays}
    return _text({"type": "update_weight", "client": client, "data": data, "job_name": job_name})


def shortest(array: NDArray[Any]) -> NDArray[Any]:
    """Return float32 values as the float64 that need few digits in decimal and round to the same float32.

    Nine significant digits identify a float32, where its exact value has up to twice as many.
    """
    if array.dtype != np.float32:
        return array
    exact = array.astype(np.float64)
    size = np.abs(exact)
    usual = (size > 1e-12) & (size < 1e12)
    scale = 10.0 ** (8 - np.floor(np.log10(np.where(usual, size, 1.0))))
    rounded = np.rint(exact * scale) / scale
    same = usual & (rounded.astype(np.float32) == array)
    result: NDArray[np.float64] = np.where(same, rounded, exact)
    return result


def upload_limit(model: Tensors) -> int:
    """Return the bytes that an upload for `model` may have, looked at before it is parsed."""
    if not model:
        return UNKNOWN_MODEL_LIMIT
    return NUMBER_BYTES * sum(int(array.size) for array in model.values()) + BESIDE_BYTES


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
