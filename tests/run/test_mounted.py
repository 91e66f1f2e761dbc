"""What a pod says of data that are not there: which field to look at, and what is to be seen at the mount."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engram.errors import DataError
from engram.run.composition import Place
from engram.run.mounted import explaining_data

VOLUME = {"persistentVolumeClaim": {"claimName": "images"}}
FIELD = "runAsUser of spec.workers[name=edge]"


def sentence(mount: Path | None, path: str, error: Exception, volume: Mapping[str, Any] = VOLUME) -> str:
    with (
        pytest.raises(DataError) as caught,
        explaining_data(Place(Path("/etc"), mount), volume, path, FIELD),
    ):
        raise error
    return str(caught.value)


def test_an_empty_volume_says_so(tmp_path: Path) -> None:
    said = sentence(tmp_path, "", DataError("no file train-images here"))
    assert said.startswith("spec.dataset: no file train-images here; ")
    assert f"{tmp_path}, of spec.dataset.volume, is empty: put the data there" in said


def test_a_path_that_is_not_there_shows_what_is(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).touch()
    said = sentence(tmp_path, "images", DataError("images does not exist"))
    assert f"mounted at {tmp_path}, holds a, b, c, d, e and more: correct spec.dataset.path" in said


@pytest.mark.parametrize("content", ["directory", "file"])
def test_what_may_not_be_read_names_the_user_and_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "data"
    path.mkdir() if content == "directory" else path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    said = sentence(tmp_path, "data", PermissionError(13, "Permission denied", str(path)))
    assert f"{path}: Permission denied" in said
    assert f"the pod runs as user {os.getuid()}: give it permission to read, or set {FIELD}" in said


def test_nothing_is_added_where_no_volume_is_mounted(tmp_path: Path) -> None:
    assert sentence(None, "", DataError("gone")) == "gone"
    assert sentence(tmp_path, "", DataError("gone"), volume={}) == "gone"
    denied = PermissionError(13, "Permission denied", "/data/x")
    assert sentence(None, "", denied) == "/data/x: cannot be read: Permission denied"
