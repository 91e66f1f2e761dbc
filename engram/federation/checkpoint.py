"""What survives a restart of the aggregator, and the files it is kept in.

A checkpoint is one file: a length, JSON, tensors, and a digest over all of it. It is written beside the
others under a temporary name, synced, renamed, and named by the manifest last; the one before stays. So
whatever moment a process or machine dies at, a whole checkpoint is there. A newest one that is damaged
falls back to the one before. Nothing in the files can run code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engram.errors import CheckpointError, ConfigurationError, ProtocolError
from engram.federation.actions import Cursor
from engram.federation.durable import write_whole
from engram.federation.history import History
from engram.federation.messages import EMPTY, Tensors
from engram.federation.tensors import ALIGNMENT, Buffer, TensorReader, buffers_of, rows_of

MAGIC = b"ENGRAMC1"
MANIFEST = "manifest.json"
DIGEST_BYTES = 32
GROUPS = ("weights", "learner", "aggregation", "owed")
NAME = re.compile(r"checkpoint-(\d{8})\.bin")


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run continues from."""

    job_digest: str
    cursor: Cursor
    begun: int
    """The last task that the global learner began; 0: none."""
    weights: Tensors
    learner: Tensors = field(default_factory=dict)
    aggregation: Tensors = field(default_factory=dict)
    """The aggregation rule's own state, such as a server optimiser's moments."""
    owed: Tensors = field(default_factory=dict)
    """What compressed orders have not said yet of the global model."""
    states: dict[str, bytes] = field(default_factory=dict)
    """State blobs of the workers from the last consolidation."""
    samples: dict[str, int] = field(default_factory=dict)
    """What each worker said it holds."""
    history: History = field(default_factory=History)


class CheckpointStore:
    """A directory of checkpoints; it keeps the newest two."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._damaged: set[str] = set()
        """Files that `load` could not use: none of them is worth keeping in place of a whole one."""

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint durably. Raises CheckpointError (disk full, no permission); older ones stay."""
        self.write(prepared(snapshot))

    def write(self, parts: Sequence[Buffer]) -> None:
        """Write what `prepared` returned, as `save` does."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            numbers = self._numbers()
            number = max(numbers, default=0) + 1
            write_whole(self.directory / _file_name(number), [*parts, _digest_of(parts)])
            kept = [_file_name(number)]
            self._damaged.difference_update(kept)
            kept += [name for name in self._names() if name not in {*kept, *self._damaged}][:1]
            write_whole(self.directory / MANIFEST, [json.dumps({"checkpoints": kept}).encode() + b"\n"])
            for old in numbers:
                if _file_name(old) not in kept:
                    (self.directory / _file_name(old)).unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(
                f"{self.directory}: the checkpoint cannot be written: {reason}; the one before is kept: make "
                "room or give permission and continue with --resume"
            ) from error

    def load(self, job_digest: str) -> tuple[Snapshot, tuple[str, ...]] | None:
        """Return the newest checkpoint that is whole, with notes on damaged ones; None when there is none.

        Raises CheckpointError when none of those present is whole, ConfigurationError when it belongs to
        another job.
        """
        notes: list[str] = []
        try:
            names = self._names()
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {error.strerror or error}") from error
        for name in names:
            try:
                snapshot = _parse((self.directory / name).read_bytes())
            except (OSError, ValueError, KeyError, TypeError, ProtocolError) as error:
                self._damaged.add(name)
                notes.append(f"checkpoint {name} is damaged ({error}); continued from the one before")
                continue
            if snapshot.job_digest != job_digest:
                raise ConfigurationError(
                    f"the checkpoint belongs to another job or another version of this one (digest "
                    f"{snapshot.job_digest[:12]}, this job has {job_digest[:12]})",
                    file=str(self.directory),
                    remedy="restore the job file, or give another directory, or delete this one",
                )
            return snapshot, tuple(notes)
        if notes:
            raise CheckpointError(
                f"{self.directory}: no checkpoint is whole: {'; '.join(notes)}; delete the directory to "
                "start afresh"
            )
        return None

    def _names(self) -> list[str]:
        """Return the files that count, newest first: those the manifest names, or all when it is damaged."""
        try:
            names = json.loads((self.directory / MANIFEST).read_bytes())["checkpoints"]
            if names and all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
                return list(names)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return [_file_name(number) for number in sorted(self._numbers(), reverse=True)]

    def _numbers(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        matches = (NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return [int(match[1]) for match in matches if match is not None]


def _file_name(number: int) -> str:
    return f"checkpoint-{number:08d}.bin"


def prepared(snapshot: Snapshot) -> list[Buffer]:
    """Return what a file is written from: the bytes of everything that may change while it is written, and
    views of the tensors, which are never written to.
    """
    groups: list[Tensors] = [snapshot.weights, snapshot.learner, snapshot.aggregation, snapshot.owed]
    meta = {
        "job_digest": snapshot.job_digest,
        "cursor": asdict(snapshot.cursor),
        "begun": snapshot.begun,
        "states": {name: base64.b64encode(blob).decode() for name, blob in snapshot.states.items()},
        "samples": snapshot.samples,
        "history": snapshot.history.model_dump(mode="json"),
        "tables": [rows_of(group) for group in groups],
    }
    text = json.dumps(meta, separators=(",", ":")).encode()
    start = MAGIC + struct.pack("<Q", len(text)) + text
    parts: list[Buffer] = [start + bytes(-len(start) % ALIGNMENT)]
    for group in groups:
        parts += buffers_of(group)
    return parts


def _digest_of(parts: Sequence[Buffer]) -> bytes:
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def _parse(data: bytes) -> Snapshot:
    """Return what a file holds. Raises ValueError, KeyError, TypeError or ProtocolError if damaged."""
    view = memoryview(data)
    if len(view) < len(MAGIC) + 8 + DIGEST_BYTES or view[: len(MAGIC)] != MAGIC:
        raise ValueError("not a checkpoint, or cut short")
    body = view[:-DIGEST_BYTES]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != view[-DIGEST_BYTES:]:
        raise ValueError("its digest does not fit its content")
    (length,) = struct.unpack("<Q", body[8:16])
    meta: dict[str, Any] = json.loads(bytes(body[16 : 16 + length]))
    reader = TensorReader(body, 16 + length + -(16 + length) % ALIGNMENT)
    tensors = dict(zip(GROUPS, (reader.read(table) for table in meta["tables"]), strict=True))
    reader.finish()
    cursor = meta["cursor"]
    return Snapshot(
        job_digest=meta["job_digest"],
        cursor=Cursor(
            cursor["task"], cursor["round"], tuple(cursor["members"]), tuple(cursor.get("pace", ()))
        ),
        begun=meta["begun"],
        weights=tensors.get("weights", EMPTY),
        learner=tensors.get("learner", EMPTY),
        aggregation=tensors.get("aggregation", EMPTY),
        owed=tensors.get("owed", EMPTY),
        states={name: base64.b64decode(blob) for name, blob in meta["states"].items()},
        samples=meta["samples"],
        history=History.model_validate(meta["history"]),
    )
