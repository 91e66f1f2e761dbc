"""The compact report: how the files of a run's report come out of its pod, which may not talk to Kubernetes.

The report pod prints them as the last lines of its log, gzip in base64 between two markers; the operator
reads the end of that log and writes a ConfigMap. Whoever can write to the log can write such a block, so
reading one is bounded in size and believes nothing.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

REPORT_BEGIN = "-----BEGIN ENGRAM REPORT-----"
REPORT_END = "-----END ENGRAM REPORT-----"

MOST_PACKED = 700 * 1024
"""Bytes between the markers, ends of lines included."""
MOST_TEXT = 900_000
"""UTF-8 bytes of all files together: a ConfigMap holds 1 MiB."""
MOST_INFLATED = 2 * MOST_TEXT + 64 * 1024
"""Bytes of the JSON inside; quotes and ends of lines take two of them each."""
LINE = 4000
"""Characters a line: container runtimes split lines of more than 16 KiB."""
MOST_LINES = MOST_PACKED // LINE + 3
"""Of a whole block: with so many `tailLines` the end of a log holds it."""

MOST_NOTES = 20
MOST_LETTERS = 1000
"""Of a note, and of the location."""

SCHEMA = "engram.report.compact/v1"
FILE_NAME = re.compile(r"(?!\.$|\.\.)[-._a-zA-Z0-9]{1,253}")
"""What a ConfigMap takes as a key."""
DATA_LINE = re.compile(r"[A-Za-z0-9+/]+=*")


@dataclass(frozen=True)
class CompactReport:
    """The files of a report for a ConfigMap. Raises ValueError for what no ConfigMap or status can hold."""

    files: Mapping[str, str]
    """Name -> text, the most important first."""
    location: str = ""
    """Where the full report lies, a path in `spec.report.volume`; empty: nowhere."""
    notes: tuple[str, ...] = ()
    """What could not be done, as sentences."""

    def __post_init__(self) -> None:
        for name, text in self.files.items():
            if not FILE_NAME.fullmatch(name):
                raise ValueError(f"{name[:100]!r} is no name of a file in a ConfigMap")
            _utf8(name, text)
        if len(self.notes) > MOST_NOTES:
            raise ValueError(f"{len(self.notes)} notes are too many: {MOST_NOTES} at most")
        for what, text in (("location", self.location), *(("a note", note) for note in self.notes)):
            _utf8(what, text)
            if len(text) > MOST_LETTERS:
                raise ValueError(f"{what} has {len(text)} letters: {MOST_LETTERS} at most")

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the files, whatever their order."""
        canonical = json.dumps(dict(self.files), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def size(self) -> int:
        """UTF-8 bytes of all files together."""
        return sum(len(text.encode()) for text in self.files.values())


def pack(report: CompactReport) -> str:
    """Return the lines to print, markers included; the same report gives the same text.

    A file that no longer fits beside those before it is left out, and a note says which.
    """
    kept: dict[str, str] = {}
    lines = _lines(_encoded(_only(report, kept)))
    for name, text in report.files.items():
        candidate = _only(report, {**kept, name: text})
        if candidate.size > MOST_TEXT:
            continue
        inner = _encoded(candidate)
        tried = _lines(inner)
        if len(inner) <= MOST_INFLATED and len("\n".join(tried)) <= MOST_PACKED:
            kept[name], lines = text, tried
    return "\n".join((REPORT_BEGIN, *lines, REPORT_END)) + "\n"


def unpack(text: str) -> CompactReport | None:
    """Return the last whole report in a log, around which anything may stand; None when there is none.

    Raises ValueError, one sentence, for a block that is damaged or larger than `pack` makes it.
    """
    found = list(_blocks(text))
    return _decoded(_inflated(found[-1])) if found else None


def _only(report: CompactReport, files: Mapping[str, str]) -> CompactReport:
    """Return the report with these of its files, and a note about the others."""
    missing = [name for name in report.files if name not in files]
    if not missing:
        return report
    where = "the full report has them" if report.location else "give spec.report.volume to keep them"
    note = (
        f"too large for a ConfigMap ({MOST_TEXT:,} bytes in all) and left out: {', '.join(missing)}; {where}"
    )
    return replace(report, files=files, notes=(*report.notes, note[:MOST_LETTERS])[-MOST_NOTES:])


def _encoded(report: CompactReport) -> bytes:
    inner = {
        "schema": SCHEMA,
        "location": report.location,
        "notes": list(report.notes),
        "files": dict(report.files),
    }
    return json.dumps(inner, ensure_ascii=False, separators=(",", ":")).encode()


def _lines(inner: bytes) -> list[str]:
    text = base64.b64encode(gzip.compress(inner, mtime=0)).decode("ascii")
    return [text[start : start + LINE] for start in range(0, len(text), LINE)]


def _blocks(text: str) -> Iterator[str]:
    """Yield the base64 of each whole block; lines in between that are none were written by somebody else."""
    found: list[str] | None = None
    for line in text.splitlines():
        line = line.strip()
        if line == REPORT_BEGIN:
            found = []
        elif line == REPORT_END and found is not None:
            yield "".join(found)
            found = None
        elif found is not None and DATA_LINE.fullmatch(line):
            found.append(line)


def _inflated(packed: str) -> bytes:
    if len(packed) > MOST_PACKED:
        raise ValueError(f"the report has {len(packed):,} bytes packed: {MOST_PACKED:,} at most")
    stream = zlib.decompressobj(wbits=31)  # gzip, checksum included
    try:
        inner = stream.decompress(base64.b64decode(packed, validate=True), MOST_INFLATED + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the report is damaged: {error}") from error
    if len(inner) > MOST_INFLATED:
        raise ValueError(f"the report unpacks to more than {MOST_INFLATED:,} bytes")
    if not stream.eof or stream.unused_data:
        raise ValueError("the report is damaged: it is cut off, or something follows it")
    return inner


def _decoded(inner: bytes) -> CompactReport:
    try:
        value: Any = json.loads(inner)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the report is damaged: no JSON inside: {error}") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"the report is of another version: its schema is not {SCHEMA}")
    files, location, notes = (value.get(key) for key in ("files", "location", "notes"))
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ValueError("the report is damaged: files is no map of texts")
    if not isinstance(location, str):
        raise ValueError("the report is damaged: location is no text")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("the report is damaged: notes is no list of texts")
    report = CompactReport(files, location, tuple(notes))
    if report.size > MOST_TEXT:
        raise ValueError(f"the report's files have {report.size:,} bytes: {MOST_TEXT:,} at most")
    return report


def _utf8(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is no text that UTF-8 can write: {error.reason}") from error
