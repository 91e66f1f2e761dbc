"""How a running aggregator learns that groups were resized: mounted files that change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.run.roster import Roster
from engram.spec import parse_job
from engram.spec.names import SpecKey


class Mounted:
    """The folder of the job file, and a roster over it."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        self.folder, self.document = folder, document
        self.sizes: list[int] = []
        self.write_job()

    def roster(self) -> Roster:
        return Roster(self.folder / SpecKey.JOB, parse_job(self.document), self.sizes.append)

    def write_job(self, replicas: int | None = None) -> None:
        if replicas is not None:
            self.document["spec"]["workers"][0]["replicas"] = replicas
        self.write(SpecKey.JOB, yaml.safe_dump(self.document))

    def write(self, name: str, text: str) -> None:
        """Replace a file as the kubelet does: another inode."""
        new = self.folder / "new"
        new.write_text(text)
        new.replace(self.folder / name)


@pytest.fixture
def mounted(tmp_path: Path, document: dict[str, Any]) -> Mounted:
    return Mounted(tmp_path, document)


def test_it_tells_a_change_of_the_job_file_and_nothing_else(mounted: Mounted) -> None:
    roster = mounted.roster()
    assert roster() is None
    mounted.write_job()
    assert roster() is None
    mounted.write_job(replicas=5)
    assert roster() == {"edge": 5}
    assert roster() == {"edge": 5}
    mounted.write_job(replicas=1)
    assert roster() == {"edge": 1}
    assert mounted.sizes == [5, 1]


@pytest.mark.parametrize("text", ["spec: [", "edge: 3", ""])
def test_a_file_that_makes_no_sense_changes_nothing(mounted: Mounted, text: str) -> None:
    roster = mounted.roster()
    mounted.write(SpecKey.JOB, text)
    assert roster() is None
    (mounted.folder / SpecKey.JOB).unlink()
    assert roster() is None
    mounted.write_job(replicas=3)
    assert roster() == {"edge": 3}


def test_a_list_of_its_own_counts_before_the_job_file(mounted: Mounted) -> None:
    mounted.write(SpecKey.REPLICAS, "edge 1\n")
    roster = mounted.roster()
    assert roster() == {"edge": 1}
    mounted.write_job(replicas=7)
    assert roster() == {"edge": 1}
    for odd in ("edge\n", "edge one\n", "gpu 3\n", "edge 3 4\n"):
        mounted.write(SpecKey.REPLICAS, odd)
        assert roster() == {"edge": 1}
    mounted.write(SpecKey.REPLICAS, "edge 2\n")
    assert roster() == {"edge": 2}
