"""images/build with podman, in a storage of the test's own; buildah builds the images of all other tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engram import __version__
from tests.cluster import base_image
from tests.cluster.binaries import Unavailable
from tests.cluster.fixtures import unavailable

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"engram-operator:{__version__}"
RESTRICTED = ("--read-only", "--cap-drop=all", "--network=none")
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""podman asks for more than a container of a test machine may have."""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a command with podman's storage in the test's folder; return what it prints."""
    storage = {"driver": "overlay", "graphroot": tmp_path / "storage", "runroot": tmp_path / "run"}
    lines = [f'{name} = "{value}"' for name, value in storage.items()]
    settings = tmp_path / "storage.conf"
    settings.write_text("[storage]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(settings)}

    def running(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield running
    running("podman", "rmi", "--all", "--force")
    for mount in (tmp_path / "storage/overlay", tmp_path / "run"):
        subprocess.run(["umount", "--recursive", "--quiet", mount], check=False)


def test_podman_builds_an_image_that_runs_restricted(run: Run, tmp_path: Path) -> None:
    try:
        base, builder = base_image.base_archives(tmp_path).items()
    except Unavailable as problem:
        unavailable(str(problem))
    for _, archive in (base, builder):
        run("podman", "load", "--quiet", "--input", archive)
    options = ("--tool=podman", f"--base={base[0]}", f"--builder={builder[0]}")

    built = run(sys.executable, ROOT / "images/build", *options, "operator").splitlines()[-1]

    assert built.startswith(f"{IMAGE}  ")
    shown = run("podman", "run", "--rm", *RESTRICTED, *LIMITS, IMAGE, "--help")
    assert "--kubeconfig" in shown
    inspected = run("podman", "image", "inspect", "--format={{.User}} {{.Os}}", IMAGE)
    assert inspected.split() == ["65532:65532", "linux"]
