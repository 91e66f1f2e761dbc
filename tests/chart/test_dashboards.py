"""Dashboards: read by somebody who did not write them, about metrics that exist, in a grid that fits.

That their queries return data is tested against a real Prometheus, in tests/observability.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from charts.dashboards.fleet import FLEET
from charts.dashboards.grafana import as_json
from charts.dashboards.job import JOB
from charts.dashboards.model import COLUMNS, Dashboard, Panel, Query, Section
from charts.dashboards.queries import STATES
from engram.spec.names import METRICS, MetricName, Phase, RoundPhase, WorkerCondition
from tests.chart.conftest import CHART
from tests.cluster.helm import Helm, HelmError

FILES = sorted((CHART / "dashboards").glob("*.json"))
BUILT_IN = ("__rate_interval", "__range")
UNITS = {"percentunit", "none", "short", "s", "bytes", "Bps"}
PANELS = [(board, panel) for board in (JOB, FLEET) for panel in board.panels]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return found


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_there_are_two() -> None:
    assert [file.stem for file in FILES] == ["fleet", "job"]


def test_a_fixed_uid_and_no_id_let_an_upgrade_replace_the_page(board: dict[str, Any]) -> None:
    assert board["id"] is None
    assert board["uid"] in ("engram-job", "engram-fleet")


def test_panels_are_numbered_once_and_nothing_overlaps(board: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    cells: list[set[tuple[int, int]]] = []
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        columns = range(place["x"], place["x"] + place["w"])
        cells.append({(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])})
    assert not any(one & other for one, other in combinations(cells, 2))


def test_the_data_source_is_a_variable_everywhere(board: dict[str, Any]) -> None:
    """Also on a Grafana where the data source has another name, or does not exist: the reader chooses."""
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    places = [*others, *panels_of(board)]
    places += [target for panel in panels_of(board) for target in panel["targets"]]
    assert {json.dumps(place["datasource"]) for place in places} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }


def test_namespace_and_job_can_be_chosen(board: dict[str, Any]) -> None:
    assert [item["name"] for item in board["templating"]["list"]] == ["datasource", "namespace", "job"]


def test_every_panel_says_what_it_shows_and_why_it_may_be_empty(board: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels_of(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels_of(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert re.fullmatch(r"[A-Z].{40,}\.", panel["description"]), panel["title"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert len(defaults["noValue"]) > 10, panel["title"]
        assert "no data" not in defaults["noValue"], f"{panel['title']}: say why there is none"
        assert panel["targets"], panel["title"]


def test_lines_have_names(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        for target in panel["targets"]:
            several = len(panel["targets"]) > 1 or " by (" in target["expr"]
            if several and panel["type"] != "table":
                assert target["legendFormat"] != "__auto", panel["title"]


def metric_of(name: str) -> str:
    """The metric whose series is called so: a histogram has three kinds."""
    return name if name in METRICS else re.sub(r"_(sum|count|bucket)$", "", name)


def test_queries_ask_for_metrics_and_labels_that_exist(board: dict[str, Any]) -> None:
    texts = [target["expr"] for panel in panels_of(board) for target in panel["targets"]]
    texts += [item["definition"] for item in board["templating"]["list"][1:]]
    known = {str(name): metric for name, metric in METRICS.items()}
    for text in texts:
        for name, inside in re.findall(r"(engram_[a-z_]+)(?:\{([^}]*)\})?", text):
            base = metric_of(name)
            assert base in known, text
            assert (known[base].kind == "histogram") == (base != name), text
            assert set(re.findall(r"(\w+)[=!]", inside)) <= {*known[base].labels, "le"}, text
        variables = {item["name"] for item in board["templating"]["list"]}
        assert set(re.findall(r"\$\{?(\w+)", text)) <= {*variables, *BUILT_IN}, text


def test_together_they_show_every_metric() -> None:
    texts = (query.expr for _, panel in PANELS for query in panel.queries)
    asked = {metric_of(name) for text in texts for name in re.findall(r"engram_[a-z_]+", text)}
    assert asked == set(MetricName)


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda part: part.title)
def test_what_a_run_is_asked_once_is_still_answered_when_it_has_ended(board: Dashboard, panel: Panel) -> None:
    """Series of a run end with it; the page of a run that has ended would be empty."""
    for query in panel.queries:
        if board is JOB and query.once:
            asked = query.expr.count("engram_")
            kept = query.expr.count("last_over_time(") + query.expr.count("increase(")
            assert asked == kept == query.expr.count("[$__range]"), panel.title


def test_states_and_phases_are_those_of_the_contract() -> None:
    assert {state for state, _ in STATES} == set(WorkerCondition)
    for board, title, words in (
        (JOB, "Time of a round, by phase", RoundPhase),
        (FLEET, "Jobs by phase", Phase),
    ):
        (panel,) = (panel for panel in board.panels if panel.title == title)
        assert set(panel.colours) == set(words)


def test_tables_show_what_they_ask_for() -> None:
    for board, panel in PANELS:
        if panel.kind != "table" or panel.matrix is not None:
            continue
        values = {f"Value #{chr(ord('A') + place)}" for place in range(len(panel.queries))}
        assert values == {column.key for column in panel.columns if column.key.startswith("Value")}, board.uid
        assert panel.sort is not None
        assert panel.sort[0] in {column.title for column in panel.columns}


def test_rows_break_where_the_grid_ends() -> None:
    def panel(title: str, width: int, height: int) -> Panel:
        return Panel("stat", title, "d", "none", (Query("1"),), width, height)

    sizes = [("a", 16, 4), ("b", 8, 6), ("c", 12, 2)]
    sections = (Section("one", tuple(panel(*size) for size in sizes)), Section("two", (panel("d", 24, 3),)))
    found = as_json(Dashboard("u", "t", "d", (), sections))["panels"]
    places = {item["title"]: (item["gridPos"]["x"], item["gridPos"]["y"]) for item in found}
    assert places == {"one": (0, 0), "a": (0, 1), "b": (16, 1), "c": (0, 7), "two": (0, 9), "d": (0, 10)}


@pytest.mark.control
def test_helm_leaves_them_as_they_are_and_labels_them_for_the_sidecar(helm: Helm) -> None:
    values = {"enabled": True, "labels": {"team": "edge"}, "annotations": {"grafana_folder": "engram"}}
    objects = helm.template(values={"grafana": {"dashboards": {**values, "namespace": "monitoring"}}})
    found = [item for item in objects if item["kind"] == "ConfigMap"]
    assert [item["metadata"]["name"] for item in found] == ["engram-dashboard-fleet", "engram-dashboard-job"]
    for item, file in zip(found, FILES, strict=True):
        assert item["data"] == {file.name: file.read_text(encoding="utf-8")}
        assert item["metadata"]["namespace"] == "monitoring"
        assert {"grafana_dashboard": "1", "team": "edge"}.items() <= item["metadata"]["labels"].items()
        assert item["metadata"]["annotations"] == {"grafana_folder": "engram"}
        assert len(json.dumps(item)) < 1_000_000, "more than a ConfigMap holds"


@pytest.mark.control
def test_a_misspelt_value_of_theirs_is_refused_by_its_path(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"grafana\.dashboards: Additional property enable is not allowed"):
        helm.template(values={"grafana": {"dashboards": {"enable": True}}})
