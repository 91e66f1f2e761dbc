"""Dashboards as Grafana's own library reads them: the types that Grafana Labs publishes, taken strictly.

A Grafana that could load and draw them cannot be had where these tests run. Its library knows every field of
a dashboard, of the options of each kind of panel, and of a query to Prometheus.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import CHART
from tests.cluster import binaries
from tests.cluster.fixtures import unavailable

pytestmark = pytest.mark.slow

FILES = sorted((CHART / "dashboards").glob("*.json"))


@pytest.fixture(scope="module")
def complaints() -> Callable[[Path], list[str]]:
    """What the library has against a dashboard."""
    try:
        program = binaries.find("dashboards")
    except binaries.Unavailable as reason:
        unavailable(str(reason))

    def read(file: Path) -> list[str]:
        done = subprocess.run([program, file], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()

    return read


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_grafanas_library_has_nothing_against_it(complaints: Callable[[Path], list[str]], file: Path) -> None:
    assert complaints(file) == []


def misspelt_option(board: dict[str, Any]) -> None:
    board["panels"][1]["options"]["colourMode"] = "value"


def text_for_a_number(board: dict[str, Any]) -> None:
    board["panels"][1]["gridPos"]["w"] = "12"


def missing_option(board: dict[str, Any]) -> None:
    del board["panels"][1]["options"]["reduceOptions"]


def misspelt_query(board: dict[str, Any]) -> None:
    board["panels"][1]["targets"][0]["expression"] = "up"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (misspelt_option, "panels[1].options.Options: unexpected field 'colourMode'"),
        (text_for_a_number, "panels[1].gridPos.w: "),
        (missing_option, "panels[1].options.reduceOptions: required field is missing"),
        (misspelt_query, "panels[1].targets[0].Dataquery: unexpected field 'expression'"),
    ],
)
def test_it_sees_mistakes(
    complaints: Callable[[Path], list[str]],
    mistake: Callable[[dict[str, Any]], None],
    words: str,
    tmp_path: Path,
) -> None:
    board = json.loads((CHART / "dashboards/job.json").read_text(encoding="utf-8"))
    mistake(board)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(board))
    assert any(line.startswith(words) for line in complaints(file)), complaints(file)
