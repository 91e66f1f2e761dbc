from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engram.metrics.matrix import AccuracyMatrix, from_history
from engram.metrics.measures import measure
from engram.report.document import build_document
from engram.report.record import Record
from engram.report.render import write_report
from engram.report.tables import exemplar_budget, jain

Make = Callable[..., Record]


def test_metrics_are_those_of_the_history(make_record: Make) -> None:
    record = make_record()
    document = build_document(record)
    assert document["schema"] == "engram.report/v1"
    assert document["metrics"] == measure(from_history(record.classes, record.history))
    assert document["undefined"] == {
        "forward_transfer": "Classes not yet seen were not evaluated; set spec.evaluation.unseen to true "
        "to measure it.",
        "intransigence_by_task": "It needs a joint reference run on the same split.",
    }


def test_matrix_file_reproduces_the_report_exactly(make_record: Make, tmp_path: Path) -> None:
    write_report(tmp_path, make_record("icarl", 2))
    report = json.loads((tmp_path / "report.json").read_text())
    measured = measure(AccuracyMatrix.load(tmp_path / "matrix.json"))
    assert json.loads(json.dumps(measured)) == report["metrics"]


def test_traffic_and_time_add_up_to_the_record(make_record: Make) -> None:
    record = make_record()
    document = build_document(record)
    assert sum(row["bytes_down"] for row in document["workers"]) == record.cost.bytes_down
    assert sum(row["up"] for row in document["time_and_traffic"]["bytes_by_task"]) == record.cost.bytes_up
    assert sum(row["bytes_up"] for row in document["tasks"]) == record.cost.bytes_up
    phases = document["time_and_traffic"]["seconds_by_phase"]
    assert sum(phases.values()) == pytest.approx(record.cost.seconds)
    assert list(phases)[:3] == ["broadcast", "train", "upload"]


def test_rounds_have_the_loss_weighted_by_samples_and_who_was_absent(make_record: Make) -> None:
    record = make_record()
    row = build_document(record)["rounds"][9]
    assert (row["number"], row["task"], row["round"]) == (10, 3, 2)
    assert row["absent"] == ["trainworker-edge-1"]
    assert row["degraded"]
    parts = [part for part in record.history.rounds[9].workers.values() if part.outcome == "accepted"]
    expected = sum(p.samples * p.metrics["loss"] for p in parts) / sum(p.samples for p in parts)
    assert row["loss"] == pytest.approx(expected)
    assert row["updates"] == 4


def test_round_accuracy_is_over_seen_classes_only(make_record: Make) -> None:
    record = make_record()
    counts = record.history.rounds[0].counts
    assert counts is not None
    before = build_document(record)["rounds"][0]["accuracy"]
    counts.total |= {0: 36, 5: 36}
    counts.right_unseen = {0: 3, 5: 3}
    assert build_document(record)["rounds"][0]["accuracy"] == before


def test_workers_say_what_they_held_and_did(make_record: Make) -> None:
    rows = {row["name"]: row for row in build_document(make_record())["workers"]}
    faulty = rows["trainworker-edge-1"]
    assert (faulty["accepted"], faulty["absent"]) == (19, 1)
    assert (faulty["restarts"], faulty["reconnects"]) == (1, 2)
    assert faulty["samples"] == faulty["labelled"] + faulty["unlabelled"]
    assert rows["trainworker-gpu-0"]["device"] == "cuda:0"


def test_asynchronous_rounds_say_how_far_behind_updates_were(make_record: Make) -> None:
    record = make_record()
    assert {row["staleness"] for row in build_document(record)["workers"]} == {None}
    first, second = record.history.rounds[:2]
    first.workers["trainworker-gpu-0"].metrics["staleness"] = 0.0
    second.workers["trainworker-gpu-0"].metrics["staleness"] = 3.0
    second.workers["trainworker-edge-0"].metrics["staleness"] = 0.0
    document = build_document(record)
    rows = {row["name"]: row for row in document["workers"]}
    assert (rows["trainworker-gpu-0"]["staleness"], rows["trainworker-gpu-0"]["most_staleness"]) == (1.5, 3)
    assert (rows["trainworker-edge-0"]["staleness"], rows["trainworker-edge-0"]["most_staleness"]) == (0, 0)
    assert rows["trainworker-edge-1"]["staleness"] is None
    assert [row["staleness"] for row in document["rounds"][:3]] == [0, 1.5, None]


def test_exemplars_that_hold_most_labels_are_a_warning(make_record: Make) -> None:
    document = build_document(make_record("replay"))
    budget = document["labels"]["exemplars"]
    held = sum(min(50, sum(row.values())) for row in document["labels"]["by_worker"].values())
    assert budget == {"per_worker": 50, "share": held / document["labels"]["labelled"]}
    assert any("does not test forgetting" in note for note in document["notes"])
    few = make_record(spec={"algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 10}}})
    assert not any("does not test forgetting" in note for note in build_document(few)["notes"])


@pytest.mark.parametrize(
    ("algorithm", "budget"),
    [
        ({"name": "finetune"}, None),
        ({"name": "icarl"}, 50),
        ({"name": "icarl", "parameters": {"exemplarsPerWorker": 7}}, 7),
        ({"name": "mine:Own", "parameters": {"exemplarsPerWorker": 9}}, 9),
        ({"name": "mine:Own", "parameters": {}}, None),
    ],
)
def test_exemplar_budget(make_record: Make, algorithm: dict[str, object], budget: int | None) -> None:
    assert exemplar_budget(make_record(spec={"algorithm": algorithm})) == budget


def test_one_task_measures_no_forgetting(make_record: Make) -> None:
    document = build_document(make_record("joint", joint_upfront=True))
    assert document["metrics"]["forgetting"] is None
    assert "one task" in document["undefined"]["forgetting"]
    assert document["progress"]["tasks"] == 1
    assert len(document["setting"]["split_tasks"]) == 5


def test_an_unfinished_run_says_what_its_figures_cover(make_record: Make) -> None:
    cut = build_document(make_record(finished=2, status="interrupted"))
    assert (
        cut["notes"][0] == "This run was interrupted: the figures cover the 2 of 5 tasks that were finished."
    )
    assert len(cut["metrics"]["accuracy_by_task"]) == 2
    assert "After 2 tasks" in cut["summary"]
    none = build_document(make_record(finished=0, status="failed"))
    assert none["notes"][0] == "This run failed: no task was finished."
    assert none["metrics"]["accuracy"] is None
    assert none["tasks"] == []


def test_document_is_json_without_nan(make_record: Make) -> None:
    document = build_document(make_record())
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_jain() -> None:
    assert jain([5, 5, 5]) == pytest.approx(1)
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain([0, 0]) is None
    assert jain([]) is None
