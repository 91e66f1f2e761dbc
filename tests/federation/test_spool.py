"""Updates that wait on a volume: same bits as in memory, blocks of bounded size, nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.errors import CheckpointError
from engram.federation.aggregation import Aggregation, build
from engram.federation.aggregation import spool as spool_module
from engram.federation.aggregation.listed import Client, ListedAggregation
from engram.federation.aggregation.spool import BLOCK, VALUES, Spool
from engram.federation.messages import Tensors

RULES: list[tuple[str, dict[str, Any]]] = [
    ("median", {}),
    ("trimmed-mean", {"trim": 0.2}),
    ("krum", {"byzantine": 1, "keep": 1}),
    ("krum", {"byzantine": 1, "keep": 3}),
]
SameBits = Callable[[Tensors, Tensors], bool]


def model() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(BLOCK // 100 + 7, 100)).astype(np.float32),
        "one": np.array(0.5, np.float32),
        "double": rng.normal(size=3),
        "empty": np.zeros((0, 2), np.float32),
        "steps": np.array(3, np.int64),
    }


def update(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {
        name: (array + rng.normal(size=array.shape)).astype(array.dtype) for name, array in model().items()
    }


def finished(rule: Aggregation, workers: list[int]) -> Tensors:
    rule.begin(model(), 1000)
    for worker in workers:
        rule.add(f"w{worker:03}", 1, update(worker))
    return rule.finish()


def naive(name: str, parameters: dict[str, Any], count: int) -> Tensors:
    """Return what the rules did when they held every update, a stack a tensor."""
    updates = [update(worker) for worker in range(count)]
    result: dict[str, NDArray[Any]] = dict(model())
    names = [key for key, array in result.items() if array.dtype.kind == "f"]
    if name == "krum":
        flat = [np.concatenate([u[key].reshape(-1).astype(np.float64) for key in names]) for u in updates]
        distances = np.array([[((a - b) ** 2).sum() for b in flat] for a in flat])
        near = np.sort(distances + np.diag(np.full(count, np.inf)), axis=1)
        scores = near[:, : count - parameters["byzantine"] - 2].sum(axis=1)
        chosen = sorted(np.argsort(scores, kind="stable")[: parameters["keep"]])
        updates = [updates[index] for index in chosen]
    for key in names:
        stack = np.stack([u[key] for u in updates]).astype(np.float64)
        if name == "median":
            stack.sort(axis=0)
            value = (stack[(count - 1) // 2] + stack[count // 2]) / 2
        elif name == "trimmed-mean":
            stack.sort(axis=0)
            cut = int(parameters["trim"] * count + 1e-9)
            value = stack[cut : count - cut].mean(axis=0)
        else:
            value = stack.mean(axis=0)
        result[key] = np.asarray(value).astype(result[key].dtype)
    return result


@pytest.mark.parametrize(("name", "parameters"), RULES)
@pytest.mark.parametrize("values", [VALUES, 3000], ids=["wide", "narrow"])
def test_a_volume_gives_the_bits_that_memory_gives(
    same_bits: SameBits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    parameters: dict[str, Any],
    values: int,
) -> None:
    monkeypatch.setattr(spool_module, "VALUES", values)
    kept = build(name, parameters)
    kept.keep_in(tmp_path / "checkpoint")
    expected = naive(name, parameters, 7)
    for workers in ([0, 1, 2, 3, 4, 5, 6], [3, 6, 0, 5, 1, 4, 2]):
        assert same_bits(finished(build(name, parameters), workers), expected)
        assert same_bits(finished(kept, workers), expected)


@pytest.mark.parametrize(("name", "parameters"), RULES[:3])
def test_memory_is_bounded_by_the_block_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameters: dict[str, Any]
) -> None:
    monkeypatch.setattr(spool_module, "VALUES", 1 << 17)
    weights: Tensors = {"w": np.zeros(1 << 17, np.float32)}
    rule = build(name, parameters)
    rule.keep_in(tmp_path)
    peaks = []
    for workers in (12, 96):
        tracemalloc.start()
        try:
            rule.begin(weights, workers)
            for worker in range(workers):
                rule.add(f"w{worker}", 1, {"w": np.full(1 << 17, worker, np.float32)})
            # 96 updates are 48 MiB; when they are added they take next to none.
            assert tracemalloc.get_traced_memory()[0] < 1 << 19
            rule.finish()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # Blocks of 1 MiB, a copy for differences, and the result.
    assert max(peaks) < 4 << 20
    assert peaks[1] < 1.5 * peaks[0]


def test_a_round_leaves_nothing_on_the_volume(tmp_path: Path) -> None:
    rule = build("median", {})
    rule.keep_in(tmp_path / "checkpoint")
    rule.begin(model(), 10)
    rule.add("a", 1, update(1))
    held = open_files(tmp_path)
    assert len(held) == 1
    assert held[0].endswith("(deleted)")
    assert list((tmp_path / "checkpoint").iterdir()) == []
    rule.finish()
    assert open_files(tmp_path) == []
    rule.begin(model(), 10)
    rule.add("a", 1, update(1))
    rule.begin(model(), 10)  # a round that is begun again
    assert open_files(tmp_path) == []
    rule.add("a", 1, update(1))
    del rule  # a run that was suspended in the middle of a round
    assert open_files(tmp_path) == []


def open_files(directory: Path) -> list[str]:
    descriptors = Path("/proc/self/fd")
    found = []
    for entry in list(descriptors.iterdir()):
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


@pytest.fixture
def small_files() -> Iterator[int]:
    """Let files of this process be at most so long, as on a volume without room."""
    before, limit = resource.getrlimit(resource.RLIMIT_FSIZE), 600_000
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_volume_without_room_is_an_error_and_room_later_is_enough(
    small_files: int, same_bits: SameBits, tmp_path: Path
) -> None:
    rule = build("median", {})
    rule.keep_in(tmp_path)
    rule.begin(model(), 10)
    rule.add("w000", 1, update(0))
    rule.add("w001", 1, update(1))
    with pytest.raises(CheckpointError, match=r"cannot be kept until its round is closed: File too large"):
        rule.add("w002", 1, update(2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    rule.add("w002", 1, update(2))
    assert same_bits(rule.finish(), naive("median", {}, 3))


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    rule = build("median", {})
    rule.keep_in(tmp_path / "file")
    rule.begin(model(), 10)
    with pytest.raises(CheckpointError, match="make room"):
        rule.add("a", 1, update(1))


class Remembers:
    """An aggregation class as Sedna's are, which changes what it is given."""

    def __init__(self) -> None:
        self.seen: list[list[NDArray[Any]]] = []

    def aggregate(self, clients: list[Client]) -> list[NDArray[Any]]:
        self.seen = [client.weights for client in clients]
        mean = [np.mean(arrays, axis=0) for arrays in zip(*self.seen, strict=True)]
        for arrays in self.seen:
            arrays[0] += 1
        return mean


@pytest.mark.parametrize("volume", [True, False])
def test_own_classes_get_arrays_that_they_may_change_and_keep(
    same_bits: SameBits, tmp_path: Path, volume: bool
) -> None:
    own = Remembers()
    rule = ListedAggregation("m:Remembers", own)
    if volume:
        rule.keep_in(tmp_path)
    for _ in range(2):
        rule.begin(model(), 10)
        for worker in (2, 0, 1):
            rule.add(f"w{worker}", 1, update(worker))
        result = rule.finish()
        for worker, arrays in enumerate(own.seen):
            sent = update(worker)
            assert [array.shape for array in arrays] == [array.shape for array in sent.values()]
            np.testing.assert_array_equal(arrays[0], sent["w"] + np.float32(1))
            np.testing.assert_array_equal(arrays[2], sent["double"])
        assert result["w"].dtype == np.float32
        # The class still has its arrays.
        assert len(open_files(tmp_path)) == volume
        own.seen, arrays = [], []
        assert open_files(tmp_path) == []


def test_the_blocks_of_all_updates_together_are_bounded() -> None:
    spool = Spool()
    weights: Tensors = {"w": np.arange(2 * BLOCK, dtype=np.float32)}
    for workers in (1, 32, 33, 1000):
        spool.begin(weights)
        for worker in range(workers):
            spool.add(f"w{worker}", weights)
        sizes = [(start, block.shape) for start, block in spool.blocks("w")]
        assert all(shape[0] * shape[1] <= VALUES for _, shape in sizes)
        assert sum(shape[1] for _, shape in sizes) == 2 * BLOCK
        assert sizes[0][1][1] == min(BLOCK, VALUES // workers)


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; import numpy as np; from pathlib import Path\n"
        "from engram.federation.aggregation import build\n"
        "rule = build('median', {}); rule.keep_in(Path(sys.argv[1]))\n"
        "weights = {'w': np.zeros(100_000, np.float32)}\n"
        "rule.begin(weights, 1); rule.add('a', 1, weights); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "kept")])
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "kept").iterdir()) == []
