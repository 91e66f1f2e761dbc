"""What the benchmark of the federation makes of its figures, and of systems that do not work."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.federation_load import page, peers, running
from benchmarks.federation_load.command import installed, known_rows, of_peers
from benchmarks.federation_load.rows import Row, line_of

SIZE = {62_000: 10}


def measured() -> dict[str, object]:
    ours = Row(
        "engram", 62_000, 2, "none", 0.002, 0.001, server_cpu_seconds_per_round=0.001, server_peak_mb=60.0
    )
    disk = Row("engram with checkpoints", 62_000, 10, "none", 0.02, 0.01)
    crowd = Row("engram", 62_000, 1000, "none", 0.5, server_peak_mb=120.0, note="all joined in 1.0 s")
    rows = [ours, disk, crowd, Row(peers.LEGACY, 62_000, 2, "none", 0.009)]
    rows += known_rows(SIZE, rows, [peers.LEGACY, peers.SUPERLINK])
    return {
        "command": "python benchmarks/federation.py",
        "machine": "a machine",
        "load_at_start": 0.1,
        "loopback_bytes_per_second": 7.0e9,
        "unpaced_bytes_per_second": 12.0e9,
        "core_seconds_per_round": 0.25,
        "core_workers": 10_000,
        "rows": [asdict(row) for row in rows],
    }


def test_a_page_shows_the_figures_of_the_file_and_may_be_written_again(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"Before.\n\n{page.START}\nold\n{page.END}\n\nAfter.\n")
    content = json.loads(json.dumps(measured()))
    for _ in range(2):
        page.write(file, content)
        text = file.read_text()
        assert text.startswith("Before.\n\n")
        assert text.endswith("\n\nAfter.\n")
        assert page.shown(text) == page.section(content)
    # 992,000 bytes take .14 ms longer at 3.5 GB/s.
    line = "| 62,000 x 2 | **0.0020** | 0.0011 | 1.8 | 0.0010 | 2.0 | 0.0090 | (6.40) | (0.35) | 0.001 | 60 |"
    assert line in text
    assert "(7.0 GB/s, 12.0 GB/s unpaced, as engram sends large messages)" in text
    assert "1,000 connected workers, 62,000 parameters: 0.50 s a round, all joined in 1.0 s, 120 MB." in text


def test_a_system_that_fails_is_a_line_with_the_figure_of_another_run() -> None:
    def broken(python: Path, parameters: int, workers: int, rounds: int, limit: float) -> Row:
        raise RuntimeError("no answer")

    row = peers.tried(peers.SUPERLINK, broken, Path("python"), 62_000, 2, 3, 0.001)
    assert (row.seconds_per_round, row.note) == (6.4, "failed here (no answer): a figure of another run")
    unknown = peers.tried(peers.SUPERLINK, broken, Path("python"), 5, 2, 3, 0.001)
    assert unknown.seconds_per_round is None
    assert "failed here (no answer)" in line_of(unknown)


def test_an_environment_that_is_not_there_has_no_interpreter(tmp_path: Path) -> None:
    assert peers.interpreter(tmp_path) is None
    assert {row.note for row in known_rows(SIZE, [], [])} == {"not installed: a figure of another run"}


def test_few_rounds_of_the_slowest_system_are_measured() -> None:
    there = dict.fromkeys((peers.LEGACY, peers.SUPERLINK, peers.SEDNA), Path("python"))
    assert len(list(of_peers(there, 62_000, 2, 0.001))) == 3
    assert len(list(of_peers(there, 62_000, 10, 0.001))) == 2
    assert len(list(of_peers(there, 1_000_000, 2, 0.001))) == 1, "too large for Sedna's own limits"
    assert list(of_peers({}, 62_000, 2, 0.001)) == []


def test_sedna_is_looked_for_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEDNA_PYTHON", "/nowhere/python")
    assert peers.sedna() is None
    assert installed(None) == {}


@pytest.mark.sedna
@pytest.mark.process
def test_sedna_is_measured_where_its_library_is() -> None:
    python = peers.sedna()
    if python is None:
        pytest.skip("KubeEdge's Sedna is not importable; docs/sedna.md says how to install it")
    row = running.kubeedge(python, 10_000, 2, 6, 0.001)
    assert row.seconds_per_round is not None
    assert 0 < row.seconds_per_round < 60
    assert row.bytes_per_worker_round is not None
    assert row.bytes_per_worker_round > 2 * 4 * 10_000, "text is longer than what it says"
