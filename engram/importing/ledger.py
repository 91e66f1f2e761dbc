"""Keeps account of an import: what became of every value of the input.

An importer moves over its input by `Reading`s and says of each value that it looks at what it became, or why
it was left. What nobody spoke of is entered at the end, so that nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from engram.errors import ConfigurationError
from engram.spec.problems import shown
from engram.spec.yaml_text import resolve_plain

Path: TypeAlias = tuple[str | int, ...]

MISSING: Final = object()
"""Value of a Reading whose place the input does not have."""

UNKNOWN = "not known to this importer: nothing was made of it"
EMPTY = "is empty"


@dataclass(frozen=True)
class Document:
    """One YAML document of the input."""

    file: str
    """How messages call it: the file, and which of its documents."""
    value: Any


@dataclass(frozen=True)
class Entry:
    """What became of the value at `path` of `file`, and of all below it."""

    file: str
    path: Path
    target: str
    """Where it went: a field of the job, an option of `engram run`; empty: nowhere."""
    remark: str
    """Why it went nowhere, or how what it became differs."""


class Ledger:
    """All entries of one import."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._entries: dict[Entry, None] = {}

    def open(self, document: Document) -> Reading:
        """Return the reading of the whole of `document`, whose values are accounted for from now on."""
        self._documents[document.file] = document
        return Reading(self, document.file, (), document.value)

    def enter(self, entry: Entry) -> None:
        """Keep `entry`; the same one twice counts once."""
        self._entries[entry] = None

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry in the order of the input, those for what nobody spoke of included."""
        found: list[Entry] = []
        for document in self._documents.values():
            spoken: dict[Path, list[Entry]] = {}
            for entry in self._entries:
                if entry.file == document.file:
                    spoken.setdefault(entry.path, []).append(entry)
            above = {path[:length] for path in spoken for length in range(len(path))}
            found += _walk(document.file, document.value, (), spoken, above)
        return tuple(found)


class Reading:
    """A value of the input with its place, or a place that the input does not have (`present` is False)."""

    def __init__(self, ledger: Ledger, file: str, path: Path, value: Any) -> None:
        self.ledger, self.file, self.path, self.value = ledger, file, path, value

    @property
    def present(self) -> bool:
        """Whether the input has this place, with something in it."""
        return self.value is not MISSING and self.value is not None

    @property
    def field(self) -> str:
        """The place as a user reads it, such as `testenv.metrics[0].name`."""
        return path_text(self.path)

    def __getitem__(self, step: str | int) -> Reading:
        """Return what is below, a missing one where there is nothing.

        Raises ConfigurationError when this value is of a kind that has no such steps.
        """
        value: Any = MISSING
        if self.present and isinstance(step, str):
            value = self._mapping().get(step, MISSING)
        elif self.present and isinstance(step, int):
            value = self._list()[step] if step < len(self._list()) else MISSING
        return Reading(self.ledger, self.file, (*self.path, step), value)

    def mapping(self) -> dict[str, Reading]:
        """Return what is below each key; nothing where the place is missing. Raises ConfigurationError."""
        return {key: self[key] for key in self._mapping()} if self.present else {}

    def items(self) -> list[Reading]:
        """Return the items of a list; none where the place is missing. Raises ConfigurationError."""
        return [self[index] for index in range(len(self._list()))] if self.present else []

    def _mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            raise self.error(f"is {shown(self.value)}, not a mapping", "write keys and values below it")
        return self.value

    def _list(self) -> list[Any]:
        if not isinstance(self.value, list):
            raise self.error(f"is {shown(self.value)}, not a list", "write a hyphen before each item")
        return self.value

    def text(self) -> str:
        """Return text; empty where the place is missing. Raises ConfigurationError for anything else."""
        if not self.present:
            return ""
        if not isinstance(self.value, str):
            raise self.error(f"is {shown(self.value)}, not text", "write it in quotes")
        return self.value

    def number(self) -> int | float | None:
        """Return a number, also one in quotes, as an environment has them; None where it is none."""
        value = self.value
        if isinstance(value, str) and value.strip():
            try:
                value = resolve_plain(value.strip())
            except ValueError:
                return None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def numeric(self) -> Any:
        """Return the value as a number where it is one, else as it stands, for its field to judge."""
        number = self.number()
        return self.value if number is None else number

    def becomes(self, target: str, remark: str = "") -> None:
        """Enter that this value, if there is one, went to `target`."""
        if self.present:
            self.ledger.enter(Entry(self.file, self.path, target, remark))

    def left(self, why: str) -> None:
        """Enter that nothing was made of this value, if there is one."""
        self.becomes("", why)

    def error(self, problem: str, remedy: str = "") -> ConfigurationError:
        """Return the error that this value cannot be imported."""
        return ConfigurationError(problem, field=self.field, file=self.file, remedy=remedy)


def path_text(path: Path) -> str:
    """Return a path as a user reads it; keys that would not read well are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        word = step if step and step.isprintable() and not set(step) & set(" .[]'\"#:") else repr(step)
        text += f".{word}" if text else word
    return text


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that has nothing below it, with its path: scalars, empty mappings, empty lists."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, (*path, key))
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from leaves(below, (*path, index))
    else:
        yield path, value


def _walk(
    file: str, value: Any, path: Path, spoken: Mapping[Path, list[Entry]], above: set[Path]
) -> Iterator[Entry]:
    """Yield the entries of `value` and below, in its own order; where there are none, one that says so."""
    yield from spoken.get(path, ())
    if path in above and isinstance(value, Mapping | list) and value:
        steps = value.items() if isinstance(value, Mapping) else enumerate(value)
        inside = path in spoken
        for step, below in steps:
            deeper = (*path, step)
            if not inside or deeper in above or deeper in spoken:
                yield from _walk(file, below, deeper, spoken, above)
    elif path not in spoken:
        yield Entry(file, path, "", EMPTY if value in (None, "", [], {}) else UNKNOWN)
