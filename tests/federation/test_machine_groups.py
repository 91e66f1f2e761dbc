"""Groups of workers that grow and shrink while a run goes on."""

from __future__ import annotations

import pytest

from engram.federation import actions as act
from engram.federation.events import Left, Resized
from tests.federation.drive import Drive, of

A, B, C = "a", "b", "c"


class TestElastic:
    """Groups that grow and shrink while the job runs."""

    def test_a_newcomer_is_known_from_the_next_round_on(self) -> None:
        drive = Drive(elastic=True)
        drive.join(A, B, C)
        assert drive.join("d") == [act.Greet("d"), act.Hold("d")]
        assert of(act.OpenStage, drive.round(1, 1)) == [act.OpenStage("round", 1, 2, (A, B, C, "d"))]
        assert drive.machine.cursor.members == (A, B, C, "d")

    def test_one_that_leaves_for_good_is_not_waited_for(self) -> None:
        drive = Drive(elastic=True)
        drive.join(A, B, C)
        drive.round(1, 1, A, B)
        assert of(act.Aggregate, drive(Left(C, leaving=True))) == [act.Aggregate(1, 1, (A, B), ())]
        assert drive.machine.asked == (A, B)

    def test_one_that_leaves_after_its_update_still_counts(self) -> None:
        drive = Drive(elastic=True)
        drive.join(A, B, C)
        drive.round(1, 1, A)
        drive(Left(A, leaving=True))
        assert of(act.Aggregate, drive.round(1, 1, B, C)) == [act.Aggregate(1, 1, (A, B, C), ())]

    def test_when_all_have_left_it_says_that_it_waits_and_the_next_one_to_come_does_the_round(self) -> None:
        drive = Drive(elastic=True)
        drive.join(A, B, C)
        drive(*(Left(worker, leaving=True) for worker in (A, B, C)))
        assert of(act.Degraded, drive.after(1000)) == [act.Degraded(1, 1, 0, 1, ())]
        assert drive.after(1000) == []
        drive.join("d")
        assert of(act.SendTrain, drive.last) == [act.SendTrain("d", 1, 1)]
        assert of(act.Aggregate, drive.round(1, 1, "d")) == [act.Aggregate(1, 1, ("d",), ())]

    def test_a_restart_goes_on_at_the_deadline_with_those_who_are_there(self) -> None:
        drive = Drive(act.Cursor(1, 2, (A, B, C, "d")), elastic=True)
        drive.join(A, "e")
        assert of(act.OpenStage, drive.after(100)) == [act.OpenStage("round", 1, 2, (A, "e"))]

    def test_a_lost_connection_is_no_leave(self) -> None:
        drive = Drive(elastic=True)
        drive.join(A, B, C)
        drive.round(1, 1, A, B)
        assert drive(Left(C)) == []
        assert drive.machine.missing == (C,)


class TestResizedGroups:
    EDGE = tuple(f"trainworker-edge-{index}" for index in range(3))

    @pytest.fixture(params=[False, True], ids=["computed split", "elastic"])
    def drive(self, request: pytest.FixtureRequest) -> Drive:
        made = Drive(workers=self.EDGE, rounds=(3,), elastic=request.param)
        made.join(*self.EDGE)
        return made

    def test_a_round_waits_no_more_for_workers_beyond_the_new_number(self, drive: Drive) -> None:
        first, second, third = self.EDGE
        drive.round(1, 1, first, second)
        drive(Left(third))
        assert not of(act.Aggregate, drive.last)
        assert of(act.Aggregate, drive(Resized({"edge": 2}))) == [act.Aggregate(1, 1, (first, second), ())]
        assert of(act.OpenStage, drive.last) == [act.OpenStage("round", 1, 2, (first, second))]
        assert drive.machine.cursor.members == (first, second)

    def test_an_answer_that_is_in_counts_though_its_worker_goes(self, drive: Drive) -> None:
        first, second, third = self.EDGE
        drive.round(1, 1, third, first)
        drive(Resized({"edge": 2}))
        assert of(act.Aggregate, drive.round(1, 1, second)) == [act.Aggregate(1, 1, self.EDGE, ())]
        assert of(act.OpenStage, drive.last)[0].workers == (first, second)

    def test_who_rests_is_told_to_wait_until_its_group_grows_again(self, drive: Drive) -> None:
        first, second, third = self.EDGE
        drive(Resized({"edge": 1}))
        drive(Left(third))
        assert drive.join(third) == [act.Greet(third), act.Hold(third)]
        assert of(act.OpenStage, drive.round(1, 1, first))[0].workers == (first,)
        drive(Resized({"edge": 3}))
        assert of(act.OpenStage, drive.round(1, 2, first))[0].workers == self.EDGE
        assert {order.worker for order in of(act.SendTrain, drive.last)} == {first, second, third}

    def test_other_groups_are_untouched(self, drive: Drive) -> None:
        assert drive(Resized({"gpu": 1})) == []
        assert drive.machine.missing == self.EDGE


def test_an_elastic_run_that_resumes_gathers_the_workers_of_now() -> None:
    drive = Drive(act.Cursor(1, 2, (A,)), workers=(A, B), elastic=True)
    assert not of(act.OpenStage, drive.join(A))
    assert of(act.OpenStage, drive.join(B))[0].workers == (A, B)
