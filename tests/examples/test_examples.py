"""Every example is valid; those whose data are at hand run, shrunk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from engram.cli import app

FOLDER = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(FOLDER.glob("[0-9][0-9]-*.yaml"))
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SHRUNK = ("--set", "training.roundsPerTask=1", "--set", "training.localSteps=2")


def test_there_are_all_nine_in_order() -> None:
    assert [path.name[:2] for path in FILES] == ["01", "02", "03", "04", "05", "06", "07", "08", "09"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_validates(path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 0, result.stderr
    assert ": valid: " in result.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_documentation(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert any(line.startswith("#   engram ") and f"examples/{path.name}" in line for line in lines)
    comments = sum("#" in line for line in lines)
    assert comments > len(lines) / 4
    assert max(map(len, lines)) <= 120


def test_the_list_of_examples_is_complete() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in (*FILES, *FOLDER.glob("*.py")):
        assert f"]({path.name})" in text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("01-digits", ("--set", "tasks.count=2")),
        pytest.param(
            "02-fashion-mnist",
            ("--set", "tasks.count=2", "--set", "dataset.samplesPerClass=60"),
            marks=pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs dataset-fashion-mnist"),
        ),
        ("04-own-algorithm", ("--set", "tasks.count=2")),
        ("06-federated-learning", ()),
        ("07-sedna-estimator", ("--set", "tasks.count=2")),
    ],
)
def test_it_runs(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [
        "run",
        str(FOLDER / f"{name}.yaml"),
        "--transport",
        "in-process",
        "--quiet",
        "--out",
        str(run),
    ]
    result = CliRunner().invoke(app, [*arguments, *SHRUNK, *options])
    assert result.exit_code == 0, result.output
    report = json.loads((run / "report.json").read_text())
    job = yaml.safe_load((run / "job.yaml").read_text())
    assert report["status"] == "complete"
    assert len(report["matrix"]["classes"]) == job["spec"]["tasks"]["count"]
    assert (report["metrics"]["forget_rate"] is None) == (job["spec"]["tasks"]["count"] == 1)
