from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from engram import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_version_is_engrams(build_script: ModuleType) -> None:
    assert build_script.version() == __version__


def test_pip_settings_become_secrets_and_mounts(build_script: ModuleType, tmp_path: Path) -> None:
    certificate, wheels = tmp_path / "ca.crt", tmp_path / "wheels"
    certificate.touch()
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    settings = {
        "cert": str(certificate),
        "find-links": f"{tmp_path / 'absent'} {wheels}",
        "index-url": "https://index.example/simple",
        "quiet": "1",
    }
    with build_script.pip_options(settings, None) as options:
        assert f"--build-context=wheels={wheels}" in options
        assert f"--secret=id=pip-ca.crt,src={certificate}" in options
        (configuration,) = (Path(item.partition("src=")[2]) for item in options if "id=pip.conf" in item)
        lines = configuration.read_text().splitlines()
    assert "index-url = https://index.example/simple" in lines
    assert f"cert = {build_script.CERTIFICATE}" in lines
    assert not [line for line in lines if "quiet" in line]
    assert not configuration.exists()


def test_nothing_but_an_empty_configuration_where_pip_has_no_settings(build_script: ModuleType) -> None:
    with build_script.pip_options({}, None) as options:
        assert [item.partition(",")[0] for item in options] == ["--secret=id=pip.conf"]


def test_a_tool_that_is_not_there_is_named(build_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemExit, match="docker, podman, buildah"):
        build_script.choose_tool(None)


@pytest.mark.parametrize("image", ["runtime", "operator"])
def test_dockerfiles_keep_the_rules(build_script: ModuleType, image: str) -> None:
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "ARG BASE=python:3.12-slim-bookworm" in text
    assert "USER 65532:65532" in final
    assert "apt" not in final
    assert build_script.CERTIFICATE in text
    for architecture in ("x86", "amd64", "arm64", "aarch64", ":latest"):
        assert architecture not in text.replace("arm64 builds the same way", "")
