"""What is made from the chart is up to date, and `--check` says what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from charts.generate import FILES, MANIFESTS, main, stale_files
from tests.cluster.helm import Helm

ALL = FILES | MANIFESTS


@pytest.mark.control
def test_the_repository_is_up_to_date(helm: Helm) -> None:
    assert list(stale_files(ALL)) == [], "run `make generate`"


@pytest.mark.control
def test_check_fails_until_files_are_written(
    helm: Helm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [f"{name} is stale: run `make generate`" for name in ALL]
    assert list(tmp_path.iterdir()) == []
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {name}" for name in ALL]
    (tmp_path / "deploy" / "operator.yaml").write_text("edited by hand\n")
    assert main(["--check", str(tmp_path)]) == 1
    assert list(stale_files(ALL, tmp_path)) == ["deploy/operator.yaml"]


def test_without_helm_the_rest_is_checked_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    assert main(["--check"]) == 0
    assert capsys.readouterr().err.startswith("deploy/ is not checked: ")
