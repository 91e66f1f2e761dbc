from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.report import formats
from engram.report.charts import BarChart, LineChart, Series, report_charts
from engram.report.document import build_document
from engram.report.record import Record
from engram.report.svg import HEIGHT, LABEL_GAP, render, ticks

Make = Callable[..., Record]


def lines(*series: Series, percent: bool = True) -> LineChart:
    return LineChart("key", "Title", "Summary", "x", "y", series, percent=percent)


def numbers(svg: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, svg)]


@settings(derandomize=True)
@given(st.floats(-10, 0), st.floats(0.001, 1000))
def test_ticks_span_the_range_evenly_with_few_round_numbers(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    assert 2 <= len(marks) <= 9
    assert marks[0] <= low + 1e-6 * span
    assert marks[-1] >= low + span - 1e-6 * span
    step = marks[1] - marks[0]
    assert all(b - a == pytest.approx(step, rel=1e-6, abs=1e-9) for a, b in itertools.pairwise(marks))


def test_every_chart_of_a_report_is_well_formed_and_described(make_record: Make) -> None:
    charts = report_charts(build_document(make_record()))
    assert list(charts) == [
        "accuracy_by_task",
        "life_of_tasks",
        "loss_by_round",
        "accuracy_by_round",
        "time_by_phase",
        "bytes_by_task",
    ]
    for chart in charts.values():
        root = ET.fromstring(render(chart))
        title = root.find("title")
        assert title is not None
        assert (title.text or "").startswith(chart.title)
        assert root.get("role") == "img"


def test_charts_without_anything_to_show_are_left_out(make_record: Make) -> None:
    assert report_charts(build_document(make_record(finished=0, status="failed", faults=False))) == {}
    one = report_charts(build_document(make_record("joint", joint_upfront=True)))
    assert "accuracy_by_task" not in one


def test_a_higher_value_is_drawn_higher_and_a_gap_stays_a_gap() -> None:
    svg = render(lines(Series("a", ((1, 0.2), (2, None), (3, 0.8), (4, 0.9)))))
    heights = numbers(svg, r'<circle cx="[\d.]+" cy="([\d.]+)"')
    assert heights[0] > heights[1] > heights[2] > 0
    path = re.search(r'<path d="(M[^"]+)" class="line', svg)
    assert path is not None
    assert path[1].count("M") == 2


def test_negative_values_stay_inside_the_picture() -> None:
    svg = render(lines(Series("forget rate", ((1, -0.3), (2, 0.1)))))
    assert all(0 < y < HEIGHT for y in numbers(svg, r'cy="([\d.]+)"'))
    assert f"{formats.MINUS}50%" in svg


@settings(derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_at_the_ends_never_overlap(ends: list[float]) -> None:
    svg = render(lines(*(Series(str(i), ((1, 0.5), (2, y))) for i, y in enumerate(ends))))
    places = sorted(numbers(svg, r'<text x="[\d.]+" y="([\d.-]+)" text-anchor="start" class="label"'))
    assert len(places) == len(ends)
    assert all(b - a >= LABEL_GAP - 0.11 for a, b in itertools.pairwise(places))
    assert places[-1] <= HEIGHT


def test_a_single_point_and_a_constant_zero_can_be_drawn() -> None:
    ET.fromstring(render(lines(Series("a", ((1, 0.5),)))))
    ET.fromstring(render(lines(Series("a", ((1, 0.0), (2, 0.0))), percent=False)))
    ET.fromstring(render(BarChart("k", "T", "S", "bytes", ("down", "up"), (("task 1", (0, 0)),))))


def test_text_of_users_is_escaped_and_cut() -> None:
    svg = render(lines(Series("<b>&" + "x" * 60, ((1, 0.5), (2, 0.5)))))
    assert "<b>" not in svg
    assert "&lt;b&gt;&amp;xxx" in svg
    assert "x" * 30 not in svg


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.share(0.93149), "93.1%"),
        (formats.share(-0.0749), f"{formats.MINUS}7.5%"),
        (formats.share(-0.0001), "0.0%"),
        (formats.share(None), "not measured"),
        (formats.number(1234.56), "1,234.6"),
        (formats.whole(18154), "18,154"),
        (formats.size(999), "999 B"),
        (formats.size(9_112_500), "9.1 MB"),
        (formats.size(2.5e13), "25.0 TB"),
        (formats.duration(0.418), "0.42 s"),
        (formats.duration(12.34), "12.3 s"),
        (formats.duration(250), "4 min 10 s"),
        (formats.duration(7500), "2 h 5 min"),
        (formats.plural(1, "task"), "1 task"),
        (formats.plural(2, "class", "classes"), "2 classes"),
        (formats.listed(["a", "b", "c"], 2), "a, b and 1 more"),
        (formats.evenly(3, 5), [0, 1, 2]),
        (formats.evenly(101, 3), [0, 50, 100]),
    ],
)
def test_numbers_for_people(written: object, expected: object) -> None:
    assert written == expected
