"""A new process in the place of the one before: same bits, whatever was under way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.errors import CheckpointError, ConfigurationError
from engram.federation.checkpoint import CheckpointStore
from engram.federation.messages import Finish, Tensors
from tests.federation.desk import Desk, of

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeDesk = Callable[..., Desk]


def started(make_desk: MakeDesk, *arguments: Any, **settings: Any) -> Desk:
    """Return a desk that all three workers have joined."""
    desk = make_desk(*arguments, **settings)
    desk.join(A, B, C)
    return desk


def finished(make_desk: MakeDesk, *arguments: Any, **settings: Any) -> Desk:
    """Return one whose run is over."""
    desk = started(make_desk, *arguments, **settings)
    desk.run()
    return desk


class TestCheckpoints:
    """Restarts at every point give the run that was never interrupted."""

    @pytest.mark.parametrize("stop_after", range(10))
    @pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
    @pytest.mark.parametrize("settles", [True, False], ids=["settled", "before-it-settled"])
    def test_a_restart_after_any_step_gives_the_same_bits(
        self,
        make_desk: MakeDesk,
        same_bits: SameBits,
        tmp_path: Path,
        stop_after: int,
        rule: str,
        settles: bool,
    ) -> None:
        clean = finished(make_desk, aggregation={"name": rule})
        store = CheckpointStore(tmp_path)
        first = make_desk(store, aggregation={"name": rule})
        first.settles = settles
        first.join(A, B, C)
        for step in range(stop_after):
            first.turn((A, B, C)[step % 3])
        # The aggregator dies here; workers keep what they have.
        second = make_desk(store, aggregation={"name": rule})
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)
        assert [r.counts for r in clean.aggregator.history.tasks] == [
            r.counts for r in second.aggregator.history.tasks
        ]
        assert second.aggregator.history.faults.resumes == int(stop_after >= 3 + (not settles))
        assert len(second.aggregator.history.rounds) == 4

    def test_a_restart_asks_for_held_updates_instead_of_training_again(
        self, make_desk: MakeDesk, tmp_path: Path
    ) -> None:
        store = CheckpointStore(tmp_path)
        first = started(make_desk, store)
        first.turn()
        first.turn(A, B)
        second = make_desk(store)
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert first.learners[A].trained == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert all(row.seconds["checkpoint"] >= 0 for row in second.aggregator.history.rounds[1:])

    def test_new_workers_and_a_new_aggregator_give_the_same_bits(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = finished(make_desk)
        store = CheckpointStore(tmp_path)
        first = started(make_desk, store)
        for _ in range(4):
            first.turn()
        second = finished(make_desk, store)
        assert second.federation.head.calls[0] == "restore 2"
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)

    def test_suspending_keeps_everything_even_before_the_first_round(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = finished(make_desk)
        store = CheckpointStore(tmp_path)
        for turns in (0, 1, 2, 1):
            desk = started(make_desk, store)
            for _ in range(turns):
                desk.turn()
            letters = desk.aggregator.suspend(desk.now)
            assert not letters  # the run is not over: workers wait for the next aggregator
            assert desk.aggregator.outcome.exit_code == 75
        desk = finished(make_desk, store)
        assert desk.aggregator.history.faults.resumes == 4
        assert same_bits(clean.aggregator.weights, desk.aggregator.weights)
        assert desk.federation.head.calls.count("begin 1") == 0

    def test_a_complete_run_is_complete_when_it_is_resumed(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        store = CheckpointStore(tmp_path)
        finished(make_desk, store)
        second = make_desk(store)
        assert of(Finish, second.join(A)) == [Finish("complete", "")]
        assert second.aggregator.outcome.reason == "complete"

    def test_a_damaged_newest_checkpoint_repeats_a_round_with_a_note(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = finished(make_desk)
        store = CheckpointStore(tmp_path)
        first = started(make_desk, store)
        for _ in range(3):
            first.turn()
        newest = max(tmp_path.glob("*.bin"))
        newest.write_bytes(newest.read_bytes()[:-1])
        second = make_desk(store)
        assert second.aggregator.status().task == 1
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert any("is damaged" in note for note in second.aggregator.history.faults.notes)
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)

    def test_another_jobs_checkpoint_is_refused(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        store = CheckpointStore(tmp_path)
        make_desk(store).aggregator.suspend(0.0)
        with pytest.raises(ConfigurationError, match="another job"):
            make_desk(store, job_digest="other")

    def test_a_checkpoint_that_cannot_be_written_is_raised(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        directory = tmp_path / "checkpoint"
        desk = make_desk(CheckpointStore(directory))
        directory.write_text("a file in the way")
        desk.join(A, B, C)
        with pytest.raises(CheckpointError, match="cannot be written"):
            desk.turn()
        letters = desk.aggregator.fail(CheckpointError("no room"))
        assert {finish.message for finish in of(Finish, letters)} == {"no room"}
        assert (desk.outcome.exit_code, desk.outcome.cause) == (42, "CheckpointFailed")

    def test_an_update_that_finds_no_room_is_raised_and_can_come_again(
        self, make_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: SameBits
    ) -> None:
        def full(*arguments: Any) -> int:
            raise OSError(28, "No space left on device")

        clean = finished(make_desk, aggregation={"name": "median"})
        desk = started(make_desk, CheckpointStore(tmp_path), aggregation={"name": "median"})
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            with pytest.raises(CheckpointError, match="No space left"):
                desk.turn(A)
        # As after a restart with more room.
        again = finished(make_desk, CheckpointStore(tmp_path), aggregation={"name": "median"})
        assert same_bits(clean.aggregator.weights, again.aggregator.weights)
