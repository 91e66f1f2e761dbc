"""Generated files are those that the types make, and `--check` says which are stale."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engram.spec.algorithms import ALGORITHMS
from engram.spec.generate import FILES, ROOT, main, stale_files
from engram.spec.job import JobSpec
from engram.spec.names import Reason
from engram.spec.parameters import AGGREGATIONS, MODELS
from engram.spec.reference import render_job, render_reasons
from engram.spec.schema import Schema, schema_of


def test_the_repository_is_up_to_date() -> None:
    assert stale_files(ROOT) == [], "run `make generate`"


def test_check_fails_until_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert all(f"{name} is stale: run `make generate`" in told for name in FILES)
    assert list(tmp_path.iterdir()) == []
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {name}" for name in FILES]
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "docs/reference/job.md").write_text("edited by hand\n")
    assert stale_files(tmp_path) == ["docs/reference/job.md"]
    assert main(["--check", str(tmp_path)]) == 1


def test_what_is_fresh_is_not_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path)])
    capsys.readouterr()
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_the_reference_has_every_field() -> None:
    text = render_job()

    def check(schema: Schema, place: str) -> None:
        section = text.split(f"\n## {place}\n", 1)[1].split("\n## ", 1)[0]
        for key, below in schema["properties"].items():
            assert f"\n| `{key}` |" in section, f"{place}.{key}"
            if "properties" in below:
                check(below, f"{place}.{key}")
            elif "properties" in below.get("items", {}):
                check(below["items"], f"{place}.{key}[]")

    check(schema_of(JobSpec), "spec")
    for name in (*ALGORITHMS, *AGGREGATIONS, *MODELS):
        assert f"\n### {name}\n" in text


@pytest.mark.parametrize(
    "row",
    [
        "| `seed` | whole number from 0 to 4294967295 | `0` | no | Every random choice derives from it. |",
        "| `suspend` | true or false | `false` | yes |",
        "| `replicas` | whole number from 1 to 1000 | `3` | yes | Number of workers. |",
        "| `labelRatio` | number above 0 and at most 1 | `1.0` | no |",
        "| `volume` | object | `{}` | ignored |",
        "| `graceSeconds` | whole number from 0 to 86400 | `120` | yes |",
        '| `quorum` | whole number from 1, or percentage from 1% to 100% | `"100%"` | no |',
        "| `gradientClip` | number above 0 and at most 1000000, or null | `null` | no |",
        "| `tasks` | object |  | see below | The sequence of tasks. |",
        "| `channels` | list of at most 8: whole number from 1 to 65536 | `[16, 32]` |",
    ],
)
def test_rows_of_the_reference(row: str) -> None:
    assert row in render_job()


def test_the_reasons_page_has_every_reason_and_code() -> None:
    text = render_reasons()
    for reason in Reason:
        assert re.search(rf"^\| `{reason}` \| .+ \| .+\. \|$", text, re.MULTILINE), reason
    assert "| 75 | try again" in text


def test_tables_have_as_many_cells_as_their_head() -> None:
    for text in (render_job(), render_reasons()):
        cells = 0
        for line in text.splitlines():
            if not line.startswith("|"):
                cells = 0
                continue
            count = len(re.findall(r"(?<!\\)\|", line))
            assert cells in (0, count), line
            cells = count
