from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engram.errors import ConfigurationError
from engram.report.document import build_document
from engram.report.html import report_html
from engram.report.markdown import report_markdown
from engram.report.rank import COLUMNS
from engram.report.record import Record
from engram.report.render import write_report

Make = Callable[..., Record]

VOID = {"meta", "link", "br", "hr", "img", "input", "line", "rect", "circle", "path", "mspace"}

VARIANTS: dict[str, dict[str, Any]] = {
    "complete": {},
    "one task": {"algorithm": "joint", "joint_upfront": True},
    "interrupted": {"finished": 2, "status": "interrupted"},
    "one finished task": {"finished": 1, "status": "running"},
    "nothing finished": {"finished": 0, "status": "failed", "faults": False},
    "ten tasks of one class": {"tasks": 10},
}


class Page(HTMLParser):
    """Collects text and attributes, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_run_has_a_whole_report(make_record: Make, tmp_path: Path, variant: str) -> None:
    page = write_report(tmp_path / "run", make_record(**VARIANTS[variant]))
    assert page == tmp_path / "run" / "report.html"
    parsed = Page(page.read_text())
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "Measures and their formulas" in parsed.text
    assert "None" not in parsed.text.replace("None: every worker", "")
    assert "nan" not in parsed.text.lower().replace("finance", "")
    found = {path.name for path in (tmp_path / "run").iterdir()}
    always = {"report.html", "report.md", "report.json", "leaderboard.csv", "figures"}
    assert found == always | ({"matrix.json"} if variant != "nothing finished" else set())


def test_the_page_asks_nothing_of_the_network(make_record: Make) -> None:
    text = report_html(build_document(make_record()))
    parsed = Page(text)
    assert "<script" not in text
    policy = [value for tag, key, value in parsed.attributes if (tag, key) == ("meta", "content")]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in policy
    links = [
        value for _, key, value in parsed.attributes if key in ("href", "src", "srcset", "data", "action")
    ]
    assert links == ["data:,"]
    assert not re.search(r"url\(|@import|https?://", text)


def test_what_a_user_wrote_is_shown_and_never_run(make_record: Make) -> None:
    evil = "<script>alert(1)</script>\"'&"
    record = make_record()
    record.job["metadata"]["name"] = evil
    record.message = record.environment.command = record.environment.cpu = evil
    record.notes = [evil]
    record.history.faults.notes = [evil]
    record.dataset.class_names[2] = evil
    record.workers[0].device = evil
    text = report_html(build_document(record))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    shown = Page(text).text
    assert shown.count("alert(1)") >= 6
    markdown = report_markdown(build_document(record), [])
    assert "<script" not in markdown.replace("\\<script", "")


def test_how_far_behind_updates_were_is_shown_where_rounds_wait_for_nobody(make_record: Make) -> None:
    record = make_record()
    assert "behind" not in report_html(build_document(record)) + report_markdown(build_document(record), [])
    for row, behind in zip(record.history.rounds, (0.0, 2.0, 2.0), strict=False):
        row.workers["trainworker-edge-0"].metrics["staleness"] = behind
    document = build_document(record)
    page = report_html(document)
    assert "Rounds behind" in page
    assert "<td>1.3 (2)</td>" in page
    assert re.search(r"trainworker-edge-0 .*\| +1\.3 \(2\) \|", report_markdown(document, []))


def test_undefined_is_said_with_its_reason(make_record: Make) -> None:
    text = Page(report_html(build_document(make_record("joint", joint_upfront=True)))).text
    assert text.count("not measured") >= 6
    assert "There is one task only, so there is nothing old to compare with." in text


def test_heat_map_is_a_table_that_reads_without_colour(make_record: Make) -> None:
    record = make_record()
    text = report_html(build_document(record))
    cells = re.findall(r'<td class="[^"]*" style="--v:([\d.]+)">([\d.]+)</td>', text)
    matrix = build_document(record)["task_accuracy"]
    shown = [value for row in matrix for value in row if value is not None]
    assert [number for _, number in cells[: len(shown)]] == [f"{100 * value:.1f}" for value in shown]
    assert all(abs(float(v) - float(number) / 100) < 0.001 for v, number in cells[: len(shown)])
    assert '<th scope="row">after task 5</th>' in text


def test_a_long_run_stays_readable(make_record: Make) -> None:
    record = make_record(tasks=5)
    history = record.history
    rows = [history.tasks[0].model_copy(update={"task": task, "classes": [task]}) for task in range(1, 401)]
    for row in rows:
        row.counts = row.counts.model_copy(
            update={
                "right": dict.fromkeys(range(row.task + 1), 3),
                "total": dict.fromkeys(range(row.task + 1), 4),
            }
        )
    history.tasks = rows
    record.classes = [[task] for task in range(1, 401)]
    text = report_html(build_document(record))
    assert "30 of 400 tasks are shown" in text
    assert len(text) < 400_000


def test_the_same_record_gives_the_same_bytes(make_record: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, make_record())
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 12
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_without_figures_nothing_points_to_any(make_record: Make, tmp_path: Path) -> None:
    write_report(tmp_path, make_record(), figures=False)
    assert not (tmp_path / "figures").exists()
    assert "figures/" not in (tmp_path / "report.md").read_text()


def test_figures_are_pictures_of_something(make_record: Make, tmp_path: Path) -> None:
    write_report(tmp_path, make_record())
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        "accuracy_matrix.png",
        "accuracy_by_task.png",
        "accuracy_by_round.png",
        "life_of_tasks.png",
        "loss_by_round.png",
        "time_by_phase.png",
        "bytes_by_task.png",
    }
    markdown = (tmp_path / "report.md").read_text()
    for name in names:
        with Image.open(tmp_path / "figures" / name) as picture:
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 20
            assert "Software" not in picture.info
        assert f"(figures/{name})" in markdown


def test_a_report_written_again_replaces_the_old_one(make_record: Make, tmp_path: Path) -> None:
    write_report(tmp_path, make_record(finished=3, status="interrupted"))
    write_report(tmp_path, make_record())
    assert "interrupted" not in Page((tmp_path / "report.html").read_text()).text


def test_leaderboard_row_has_the_columns_of_a_comparison(make_record: Make, tmp_path: Path) -> None:
    write_report(tmp_path, make_record("icarl", 4))
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["algorithm.name"], row["dataset.name"], row["seed"]) == ("icarl", "digits", "4")
    assert set(row) == {"name", "status", "algorithm.name", "dataset.name", "seed"} | {c.key for c in COLUMNS}
    assert row["forward_transfer"] == ""
    metrics = build_document(make_record("icarl", 4))["metrics"]
    assert float(row["accuracy"]) == metrics["accuracy"]


def test_importing_the_report_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, engram.report, engram.report.render, engram.report.compare;"
        "print([name for name in ('torch', 'matplotlib', 'jinja2', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_the_remedy(
    make_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"needs? {package}, .*: pip install 'engram\[report\]'"):
        write_report(tmp_path, make_record())
