"""The plain values of a message's fields, checked as they come from an untrusted header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.errors import ProtocolError
from engram.federation.messages import ClassCounts, LabelCounts
from engram.federation.tensors import MAX_NAME

MAX_TEXT = 1024 * 1024
MAX_ITEMS = 1_000_000


def mapping(where: str, value: object) -> dict[Any, Any]:
    """Return a checked mapping of anything."""
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise ProtocolError(f"{where} is no mapping")
    return value


def plain(where: str, hint: Any, value: Any) -> Any:
    """Return a checked value of a field without tensors, in the type that the message declares."""
    if hint is ClassCounts:
        if not isinstance(value, list) or len(value) != 3:
            raise ProtocolError(f"{where} is not [right, total, right_unseen]")
        return ClassCounts(*(_counts(where, part) for part in value))
    if hint is LabelCounts:
        if not isinstance(value, list) or len(value) != 2:
            raise ProtocolError(f"{where} is not [labelled, unlabelled]")
        return LabelCounts(*(_counts(where, part) for part in value))
    if hint == Mapping[str, float]:
        return {_text(where, key): _number(where, number) for key, number in mapping(where, value).items()}
    if hint == tuple[int, ...]:
        return _integers(where, value)
    if hint == tuple[int, int] | None:
        if value is None:
            return None
        if len(pair := _integers(where, value)) != 2:
            raise ProtocolError(f"{where} is not a pair of integers")
        return pair
    if hint == float | None:
        return None if value is None else _number(where, value)
    if hint is float:
        return _number(where, value)
    if hint is int:
        return _integer(where, value)
    if type(value) is not hint or (isinstance(value, str | bytes) and len(value) > MAX_TEXT):
        raise ProtocolError(f"{where} is not {hint.__name__} of at most {MAX_TEXT} bytes")
    return value


def _integer(where: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ProtocolError(f"{where} is no integer from 0")
    return value


def _integers(where: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise ProtocolError(f"{where} is no list of integers")
    return tuple(_integer(where, item) for item in value)


def _counts(where: str, value: object) -> dict[int, int]:
    items = mapping(where, value).items()
    return {_integer(where, label): _integer(where, count) for label, count in items}


def _number(where: str, value: object) -> float:
    if type(value) not in (int, float):
        raise ProtocolError(f"{where} is no number")
    return float(value)  # type: ignore[arg-type]


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ProtocolError(f"{where} has a key that is no short text")
    return value
