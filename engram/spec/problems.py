"""What is wrong with a job, as values: collected first, then told together in one ConfigurationError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.errors import ConfigurationError

MOST_PROBLEMS = 10
"""Problems that one message lists; the rest is counted."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to write instead."""

    field: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.field, self.problem, self.remedy) if part)


def as_error(problems: Sequence[Problem], file: str) -> ConfigurationError:
    """Return one error for all `problems` (at least one): the first, then each other on its own line."""
    first, others = problems[0], problems[1:]
    lines = [first.remedy]
    lines += [": ".join(part for part in (file, str(other)) if part) for other in others[: MOST_PROBLEMS - 1]]
    hidden = len(problems) - MOST_PROBLEMS
    if hidden > 0:
        lines.append(f"and {hidden} more")
    return ConfigurationError(
        first.problem, field=first.field, file=file, remedy="\n".join(lines).strip("\n")
    )


def closest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the choice that `word` was most likely meant to be, None if none is near.

    Case, hyphens and underscores do not count; a choice that begins with the word is near.
    """
    known = list(choices)
    plain = {_plain(choice): choice for choice in reversed(known)}
    sought = _plain(word)
    if sought in plain:
        return plain[sought]
    near = difflib.get_close_matches(sought, plain, n=1, cutoff=cutoff)
    if near:
        return plain[near[0]]
    if len(sought) >= 4:
        return next((choice for choice in known if _plain(choice).startswith(sought)), None)
    return None


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """Return the remedy for an unknown name: the likely one, or all there are."""
    near = closest(word, choices)
    if near is not None:
        return f"did you mean {near}?"
    return f"write one of: {', '.join(choices)}" if choices else "remove it"


def shown(value: Any) -> str:
    """Return a value as it stands in the file, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").replace(" ", "").lower()
