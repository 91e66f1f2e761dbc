"""The user guide explains every reason that a job can show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engram.spec.names import Reason

GUIDE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(\w+)`$", GUIDE, re.MULTILINE)
FINE = GUIDE.partition("## Nothing is wrong")[2]


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_explained_in_one_place(reason: Reason) -> None:
    assert SECTIONS.count(reason) + FINE.count(f"`{reason}`") == 1


def test_no_section_explains_a_reason_that_does_not_exist() -> None:
    assert set(SECTIONS) - set(Reason) == set()
    assert set(re.findall(r"`([A-Z]\w+)`", FINE)) - set(Reason) == set()
