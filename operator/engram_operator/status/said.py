"""Whole numbers in what a pod says of itself, which is not trusted to be well-formed."""

from __future__ import annotations

from engram.spec.status import MOST_NUMBER


def whole(said: object) -> int:
    """Return `said` if it is a whole number that status can hold; 0 for anything else, `true` included."""
    return said if type(said) is int and 0 <= said <= MOST_NUMBER else 0


def readable(said: object) -> str:
    """Return `said` if it is text, without what UTF-8 cannot write (JSON can); empty for anything else."""
    return said.encode(errors="replace").decode() if isinstance(said, str) else ""
