"""Where the report pod gets the record of a run: the aggregator serves it for a while at its end, and it lies
beside the checkpoint afterwards.

Both may be late: the aggregator says that it has finished before its record is ready, and a volume may show a
new file seconds later. So every source is asked again until a deadline.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import ValidationError

from engram import __version__
from engram.errors import ConfigurationError, DataError
from engram.report.record import Record
from engram.run.directory import RunDirectory

MOST_BYTES = 64 * 1024 * 1024
"""Of a record; that of 1,000 workers over 100 rounds has 40 MB."""
CHUNK = 1024 * 1024
REQUEST_SECONDS = 5.0
"""For the peer to accept the connection, and for each piece of its answer."""
MOST_LETTERS = 200
"""Of a peer's or a parser's words in a sentence of ours."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0
ENDED = ("complete", "failed")
"""A record with another status may be one from the middle of the run."""


@dataclass(frozen=True)
class Miss:
    """Why a source gave no record."""

    why: str
    coming: bool = False
    """Its owner is alive and will have one: no other source has a newer one meanwhile."""
    broken: bool = False
    """It gave something that is no record: asking again does not help."""


class Source(Protocol):
    """A place that a record may be read from."""

    @property
    def name(self) -> str:
        """As the user knows it."""

    def read(self, seconds: float) -> bytes | Miss:
        """Return the record's bytes within about `seconds`, at most MOST_BYTES and one more."""


@dataclass(frozen=True)
class Served:
    """The record at an aggregator's status port."""

    name: str
    host: str
    port: int
    path: str

    def read(self, seconds: float) -> bytes | Miss:
        """Ask once."""
        until = time.monotonic() + max(seconds, REQUEST_SECONDS)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=REQUEST_SECONDS)
        try:
            connection.request("GET", self.path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status == 404:
                return Miss("has none yet", coming=True)
            if answer.status != 200:
                return Miss(f"answers {answer.status}", coming=True)
            wanted, body = answer.length, bytearray()
            while len(body) <= MOST_BYTES and (piece := answer.read1(CHUNK)):
                body += piece
                if time.monotonic() > until:
                    return Miss("is too slow")
            if wanted is not None and len(body) < min(wanted, MOST_BYTES):
                return Miss("drops the connection")
            return bytes(body)
        except (OSError, http.client.HTTPException) as error:
            return Miss(_plain(error))
        finally:
            connection.close()


@dataclass(frozen=True)
class Kept:
    """The record in a run's directory, or a record file."""

    path: Path

    @property
    def name(self) -> str:
        """The file."""
        return str(RunDirectory(self.path).record if self.path.is_dir() else self.path)

    def read(self, seconds: float) -> bytes | Miss:
        """Read it, if it is there."""
        try:
            with open(self.name, "rb") as file:
                return file.read(MOST_BYTES + 1)
        except OSError as error:
            return Miss(_plain(error))


def source_of(text: str) -> Source:
    """Return the source that `http://...` or a path names. Raises ConfigurationError for any other URL."""
    if "://" not in text:
        return Kept(Path(text))
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or 80
    except ValueError:
        host = None
    if not host or url.scheme != "http":
        raise ConfigurationError(
            f"{text!r} is no source of a record",
            field="--record",
            remedy="write http://HOST:PORT/v1/record, or the path of a run's directory",
        )
    return Served(text, host, port, url.path or "/")


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def obtain(
    sources: Sequence[Source],
    uid: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = _pause,
) -> tuple[Record, Source]:
    """Return the run's record and where it was, asking the sources in order until one has it.

    A record of another job than `uid` (a volume that was used before) is none. One of a run that has not
    ended counts only after `seconds`, when nobody has a newer one. Raises DataError when there is none then,
    or nothing but broken ones.
    """
    end, delay = clock() + seconds, FIRST_PAUSE
    while True:
        left = end - clock()
        misses: dict[str, Miss] = {}
        for source in sources:
            found = _look(source, uid, left)
            if isinstance(found, Record) and (found.status in ENDED or left <= 0):
                return found, source
            miss = found if isinstance(found, Miss) else Miss(f"is of a run that is {found.status}")
            misses[source.name] = miss
            if miss.coming and left > 0:
                break
        if left <= 0 or (len(misses) == len(sources) and all(miss.broken for miss in misses.values())):
            raise _none_found(misses, served=any(source.name.startswith("http") for source in sources))
        pause(min(delay, max(0.0, end - clock())))
        delay = min(LONGEST_PAUSE, 2 * delay)


def _look(source: Source, uid: str, seconds: float) -> Record | Miss:
    body = source.read(seconds)
    if isinstance(body, Miss):
        return body
    if len(body) > MOST_BYTES:
        return Miss(f"is larger than {MOST_BYTES // 2**20} MiB", broken=True)
    try:
        record = Record.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        return Miss(f"is no record that engram {__version__} reads: {brief(what)}", broken=True)
    metadata = record.job.get("metadata")
    other = metadata.get("uid") if isinstance(metadata, dict) else None
    if uid and other and other != uid:
        return Miss(f"is of another job (uid {brief(str(other))})")
    return record


def _none_found(misses: dict[str, Miss], *, served: bool) -> DataError:
    tried = "; ".join(f"{name} {miss.why}" for name, miss in misses.items())
    if any(miss.broken for miss in misses.values()):
        remedy = "let the image that ran the job make its report"
    elif served:
        remedy = "raise spec.report.graceSeconds, or give spec.aggregator.checkpoint.volume, where it is kept"
    else:
        remedy = "the run left none there: it was stopped before its first task was closed"
    return DataError(f"there is no record of the run to report: {tried}: {remedy}")


def _plain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read ({brief(reason)})"


def brief(text: str) -> str:
    """Return one line of what somebody else wrote."""
    return " ".join(text.split())[:MOST_LETTERS]
