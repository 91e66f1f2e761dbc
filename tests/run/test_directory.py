from __future__ import annotations

import os
from pathlib import Path

import pytest

from engram.errors import CheckpointError, ConfigurationError
from engram.run.directory import RunDirectory, choose, claim, occupied, write_text


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(path: str, name: str = "digits", *, grid: bool = False) -> None:
    directory = RunDirectory(Path(path))
    directory.path.mkdir(parents=True)
    if grid:
        directory.grid.write_text("{}")
    else:
        directory.job.write_text(f"metadata: {{name: {name}}}\n")


def test_the_default_is_the_next_free_name() -> None:
    for expected in ("runs/digits", "runs/digits-2", "runs/digits-3"):
        choice = choose("digits", None, resume=False, grid=False)
        assert choice.fresh
        assert claim(choice, "digits").path == Path(expected)


def test_choosing_creates_nothing(tmp_path: Path) -> None:
    choose("digits", None, resume=False, grid=False)
    choose("digits", Path("there"), resume=False, grid=False)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_that_chose_the_same_default_get_two_directories() -> None:
    first, second = (choose("digits", None, resume=False, grid=False) for _ in range(2))
    assert claim(first, "digits").path == Path("runs/digits")
    assert claim(second, "digits").path == Path("runs/digits-2")


def test_an_explicit_directory_is_used_as_given() -> None:
    directory = claim(choose("digits", Path("a/b"), resume=False, grid=False), "digits")
    assert directory.path == Path("a/b")
    assert directory.path.is_dir()


@pytest.mark.parametrize("grid", [False, True])
def test_a_directory_that_holds_a_run_asks_for_resume(grid: bool) -> None:
    make_run("there", grid=grid)
    with pytest.raises(ConfigurationError, match="already holds a run: add --resume"):
        choose("digits", Path("there"), resume=False, grid=grid)


def test_a_directory_with_other_files_is_refused() -> None:
    Path("there").mkdir()
    Path("there/thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="not empty and holds no run"):
        choose("digits", Path("there"), resume=False, grid=False)


def test_a_file_is_refused() -> None:
    Path("there").touch()
    with pytest.raises(ConfigurationError, match="there is a file"):
        choose("digits", Path("there"), resume=False, grid=False)


def test_resume_takes_the_newest_run_of_that_job() -> None:
    for number in ("", "-2", "-10", "-9"):
        make_run(f"runs/digits{number}")
    make_run("runs/digits-11", name="digits-11")
    make_run("runs/digits-12", grid=True)
    choice = choose("digits", None, resume=True, grid=False)
    assert choice.directory.path == Path("runs/digits-10")
    assert not choice.fresh
    assert choose("digits", None, resume=True, grid=True).directory.path == Path("runs/digits-12")


def test_resume_with_nothing_there_says_so() -> None:
    with pytest.raises(ConfigurationError, match="there is no run of digits to resume"):
        choose("digits", None, resume=True, grid=False)
    with pytest.raises(ConfigurationError, match="holds no run to resume"):
        choose("digits", Path("there"), resume=True, grid=False)


def test_a_grid_is_not_resumed_as_a_run() -> None:
    make_run("there", grid=True)
    with pytest.raises(ConfigurationError, match="there holds a grid: resume it with the --vary"):
        choose("digits", Path("there"), resume=True, grid=False)


def test_a_directory_that_cannot_be_made_is_a_clear_error() -> None:
    Path("file").touch()
    with pytest.raises(ConfigurationError, match="cannot create file/runs"):
        claim(choose("digits", Path("file/runs"), resume=False, grid=False), "digits")


def test_write_text_replaces_whole_files_and_leaves_no_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "two"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_checkpoint_error(tmp_path: Path) -> None:
    temporary = tmp_path / f".a.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device: make room"):
        write_text(tmp_path / "a", "one")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_at_work_is_refused_and_free_afterwards() -> None:
    directory = RunDirectory(Path())
    with occupied(directory):
        with pytest.raises(ConfigurationError, match="another engram run is at work"), occupied(directory):
            pass
        assert list(Path().iterdir()) == []
    with occupied(directory):
        pass
