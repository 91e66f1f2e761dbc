"""Code of the user's own: how it is imported, and how its errors are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.errors import ConfigurationError, DataError
from engram.spec.dotted import load_dotted, own_code

FIELD = "spec.algorithm.name"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_script_that_exits_on_import_does_not_end_the_process(folder: Path) -> None:
    (folder / "dotted_exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ConfigurationError, match=r"does not import: SystemExit: 3\n.*dotted_exits\.py:2"):
        load_dotted("dotted_exits:A", FIELD)


def test_the_users_line_is_shown_also_when_a_library_raises_far_below(folder: Path) -> None:
    (folder / "dotted_deep.py").write_text(
        "import pydantic\nclass A(pydantic.BaseModel):\n    x: int\nvalue = A.model_validate({'x': 'a'})\n"
    )
    with pytest.raises(ConfigurationError, match=r"dotted_deep\.py:4 in <module>") as caught:
        load_dotted("dotted_deep:A", FIELD)
    assert "site-packages" not in str(caught.value)


def test_a_folder_whose_name_begins_like_engrams_is_the_users(folder: Path) -> None:
    # The package may lie in .../engram and the user's file in .../engram_jobs.
    from engram.spec import dotted

    assert not str(Path(dotted.ENGRAM).parent / "engram_jobs" / "own.py").startswith(dotted.ENGRAM)


def test_what_own_code_raises_is_told_as_its_own() -> None:
    message = r"own:A failed: ZeroDivisionError.*\n.*test_dotted\.py"
    with pytest.raises(ConfigurationError, match=message), own_code("own:A", FIELD):
        1 / 0  # noqa: B018


class Abandoned(Exception):
    """As the WebSocket client raises through a worker's training when the run is over."""


Abandoned.__module__ = "engram.federation.websocket.client"


@pytest.mark.parametrize("error", [DataError("bad"), MemoryError(), OSError(28, "disk full"), Abandoned()])
def test_errors_that_say_more_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, own_code("own:A", FIELD):
        raise error
    assert caught.value is error


def test_built_in_names_are_not_blamed() -> None:
    with pytest.raises(ZeroDivisionError), own_code("finetune", FIELD):
        1 / 0  # noqa: B018
