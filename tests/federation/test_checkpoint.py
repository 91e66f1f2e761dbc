from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import CheckpointError, ConfigurationError
from engram.federation.actions import Cursor
from engram.federation.checkpoint import CheckpointStore, Snapshot
from engram.federation.history import History


def snapshot(number: int = 1, size: int = 10) -> Snapshot:
    history = History()
    history.faults.notes.append(f"note {number}")
    return Snapshot(
        job_digest="job",
        cursor=Cursor(2, number, ("a", "b"), (1.5, 0.25)),
        begun=2,
        weights={"w": np.arange(size, dtype=np.float32) * number, "n": np.array(number)},
        learner={"teacher/w": np.ones((3, 2))},
        aggregation={"v/w": np.full(2, 0.5)},
        states={"a": b"\x00\xff", "b": b""},
        samples={"a": 10, "b": 20},
        history=history,
    )


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def same(first: Snapshot, second: Snapshot) -> bool:
    arrays = [
        {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in group.items()}
        for value in (first, second)
        for group in (value.weights, value.learner, value.aggregation)
    ]
    rest = [(s.job_digest, s.cursor, s.begun, s.states, s.samples, s.history) for s in (first, second)]
    return arrays[:3] == arrays[3:] and rest[0] == rest[1]


def loaded(store: CheckpointStore) -> tuple[Snapshot, tuple[str, ...]]:
    found = store.load("job")
    assert found is not None
    return found


def test_what_is_saved_is_loaded_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new" / "checkpoint")
    assert store.load("job") is None
    for number in (1, 2, 3, 4):
        store.save(snapshot(number))
        found, notes = loaded(CheckpointStore(store.directory))
        assert same(found, snapshot(number))
        assert notes == ()
    assert files(store.directory) == ["checkpoint-00000003.bin", "checkpoint-00000004.bin", "manifest.json"]


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "gone"])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_note(tmp_path: Path, harm: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    store.save(snapshot(2))
    newest = tmp_path / "checkpoint-00000002.bin"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "gone":
        newest.unlink()
    else:
        newest.write_bytes({"cut": bytes(data[:-40]), "flip": bytes(data), "empty": b""}[harm])
    found, notes = loaded(store)
    assert same(found, snapshot(1))
    assert len(notes) == 1
    assert "checkpoint-00000002.bin is damaged" in notes[0]
    store.save(snapshot(3))
    assert same(loaded(store)[0], snapshot(3))
    # The whole one stays as the one before, not the damaged one.
    (tmp_path / max(files(tmp_path)[:-1])).write_bytes(b"")
    assert same(loaded(store)[0], snapshot(1))


def test_when_all_are_damaged_it_says_so(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    (tmp_path / "checkpoint-00000001.bin").write_bytes(b"ENGRAMC1" + bytes(100))
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        store.load("job")


@pytest.mark.parametrize("manifest", [None, b"", b"{", b'{"checkpoints": ["../../etc/passwd"]}', b"[]"])
def test_a_damaged_manifest_is_no_loss(tmp_path: Path, manifest: bytes | None) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    store.save(snapshot(2))
    if manifest is None:
        (tmp_path / "manifest.json").unlink()
    else:
        (tmp_path / "manifest.json").write_bytes(manifest)
    assert same(loaded(store)[0], snapshot(2))


def test_a_checkpoint_counts_once_the_manifest_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between the two renames continues from the checkpoint before."""
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    before = (tmp_path / "manifest.json").read_bytes()
    store.save(snapshot(2))
    (tmp_path / "manifest.json").write_bytes(before)
    assert same(loaded(store)[0], snapshot(1))
    store.save(snapshot(3))
    assert same(loaded(store)[0], snapshot(3))
    assert json.loads((tmp_path / "manifest.json").read_bytes())["checkpoints"][0].endswith("3.bin")


class Killed(BaseException):
    """Stands for SIGKILL or a power cut: no handler of errors sees it."""


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")], ids=["killed", "full"])
def test_whatever_step_of_a_save_is_the_last_a_whole_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    steps: list[str] = []
    fatal = -1

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            steps.append(name)
            if len(steps) - 1 == fatal:
                for path in directory.glob(".*.tmp"):
                    # What was not synced need not be there.
                    path.write_bytes(path.read_bytes()[:100])
                raise error
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, step)

    for name in ("fsync", "replace", "open", "close", "unlink"):
        watch(os, name)
    directory = tmp_path / "undisturbed"
    undisturbed = CheckpointStore(directory)
    for number in (1, 2, 3):
        steps.clear()
        undisturbed.save(snapshot(number))
    every = list(steps)
    assert {"fsync", "replace", "unlink"} <= set(every)
    for last in range(len(every)):
        directory = tmp_path / str(last)
        fatal = -1
        for number in (1, 2):
            CheckpointStore(directory).save(snapshot(number))
        steps.clear()
        fatal = last
        with pytest.raises((Killed, CheckpointError)):
            CheckpointStore(directory).save(snapshot(3))
        fatal = -1
        found, notes = loaded(CheckpointStore(directory))
        assert same(found, snapshot(2)) or same(found, snapshot(3))
        assert notes == ()
        CheckpointStore(directory).save(snapshot(4))
        assert same(loaded(CheckpointStore(directory))[0], snapshot(4))


def test_another_jobs_checkpoint_is_refused_with_advice(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot())
    with pytest.raises(ConfigurationError, match="another job") as caught:
        store.load("other")
    assert caught.value.file == str(tmp_path)
    assert "delete this one" in caught.value.remedy


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from engram.errors import CheckpointError
from engram.federation.actions import Cursor
from engram.federation.checkpoint import CheckpointStore, Snapshot

def snapshot(size):
    return Snapshot("job", Cursor(1, size, ()), 1, {"w": np.zeros(size, np.float32)})

store = CheckpointStore(Path(sys.argv[1]))
store.save(snapshot(100))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    store.save(snapshot(100_000))
except CheckpointError as error:
    print(error)
    found, notes = store.load("job")
    print(found.cursor.round, notes, sorted(path.name for path in store.directory.iterdir()))
"""


def test_a_full_disk_is_a_clear_error_and_the_one_before_is_kept(tmp_path: Path) -> None:
    """A limit on file sizes makes the kernel refuse the write in the middle, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert "cannot be written: File too large; the one before is kept" in lines[0]
    assert lines[1] == "100 () ['checkpoint-00000001.bin', 'manifest.json']"


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        CheckpointStore(tmp_path / "file" / "checkpoint").save(snapshot())
