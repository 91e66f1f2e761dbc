"""Limits in bytes: status is stored and watched as UTF-8, in which a letter takes up to four."""

from __future__ import annotations

from collections.abc import Callable


def in_bytes(cut: Callable[[str, int], str], text: str, most: int) -> str:
    """Return `text` cut to at most `most` bytes.

    Args:
        cut: cuts a text to so many letters, as `shorten` and `squeeze` do.
        text: any text.
        most: bytes of UTF-8.
    """
    length = most
    while (size := len((found := cut(text, length)).encode())) > most:
        length = length * most // size
    return found
