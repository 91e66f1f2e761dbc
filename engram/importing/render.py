"""What an import prints: the account of it, and the job file with that account at its head."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engram.importing.draft import Imported
from engram.importing.ledger import Entry, path_text
from engram.spec.yaml_text import dump_yaml

LONGEST = 240
"""Characters of a line of the account, commands aside."""


def account(imported: Imported, source: str, commands: Sequence[str]) -> list[str]:
    """Return the lines that say what became of the input.

    Args:
        imported: the import.
        source: what was imported, as the first line says it.
        commands: what to type next.
    """
    lines = [f"Imported from {source}. Not the same experiment in every detail: see what differs.", ""]
    lines += ["Run it:", *(f"  {command}" for command in commands), ""]
    said = ["Mapped:", *_by_file(imported.mapped, imported.job), ""]
    said += ["Without a counterpart:", *_by_file(imported.left, imported.job), ""]
    said += ["Not said by the input:", *(f"  {item.field}: {item.why}" for item in imported.assumed)]
    return [*map(_printable, lines), *(_shortened(_printable(line)) for line in said)]


def job_text(imported: Imported, lines: Sequence[str]) -> str:
    """Return the job file: the account as comments, then the job."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return f"{head}\n{dump_yaml(dict(imported.job))}"


def _by_file(entries: Sequence[Entry], job: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of `entries`, those of a file below its name."""
    if not entries:
        yield "  nothing"
    for file in dict.fromkeys(entry.file for entry in entries):
        yield f"  {file}"
        yield from _merged((entry for entry in entries if entry.file == file), job)


def _merged(entries: Iterable[Entry], job: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each entry; those that differ in the numbers of list items only share one."""
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for entry in entries:
        place, target = (
            path_text(entry.path) or "the whole document",
            entry.target + _value(entry.target, job),
        )
        alike.setdefault((_any_item(place), _any_item(target), entry.remark), []).append((place, target))
    for (*several, remark), found in alike.items():
        place, target = several if len(found) > 1 else found[0]
        times = f" ({len(found)} times)" if len(found) > 1 else ""
        yield f"    {place}{times}" + _fate(target, remark)


def _fate(target: str, remark: str) -> str:
    """Return what became of a value: where it went and how it differs, or why it went nowhere."""
    if not target:
        return f": {remark}"
    return f" -> {target}; {remark}" if remark else f" -> {target}"


def _value(target: str, job: Mapping[str, Any]) -> str:
    """Return what the job has at the field `target`, for one that holds a single value."""
    found: Any = job
    for key in target.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return "" if found is None or isinstance(found, Mapping | list) else f": {json.dumps(found)}"


def _any_item(text: str) -> str:
    return re.sub(r"\[[0-9]+\]", "[*]", text)


def _printable(text: str) -> str:
    """Return a line that stays one in a comment, whatever the input holds."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _shortened(line: str) -> str:
    """Return a line that is not endless."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
