"""The images themselves: built without a registry, then run by runc as containerd runs them in pods.

User 65532, read-only root file system, nothing but /tmp writable, no capability, no network.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engram import __version__
from tests.cluster.base_image import Archive, archives
from tests.cluster.binaries import Unavailable
from tests.cluster.fixtures import unavailable

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = {"runtime": 1200, "operator": 200}
"""Bounds of the archives, which are not compressed; over the network it is about a third."""


class Container:
    """An unpacked image, and a way to run commands in it."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self.archive, self.folder, self.root = archive, folder, folder / "rootfs"
        self.root.mkdir(parents=True)
        with tarfile.open(archive.path) as tar:
            tar.extractall(folder, filter="data")
        manifest = json.loads((folder / "manifest.json").read_text())[0]
        self.config: dict[str, Any] = json.loads((folder / manifest["Config"]).read_text())["config"]
        for layer in manifest["Layers"]:
            subprocess.run(["tar", "-xf", folder / layer, "-C", self.root], check=True)

    def run(self, *command: str, job: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `command` as a restricted pod would; `job` is mounted at /job.yaml."""
        (self.folder / "config.json").write_text(json.dumps(self._bundle(command, job)))
        name, state = f"engram-test-{uuid.uuid4().hex[:8]}", self.folder / "state"
        return subprocess.run(
            ["runc", "--root", state, "run", "--bundle", self.folder, name],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _bundle(self, command: Sequence[str], job: Path | None) -> dict[str, Any]:
        user, _, group = self.config["User"].partition(":")
        tmp = ["nosuid", "nodev", "mode=1777"]
        mounts: list[dict[str, Any]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": tmp},
        ]
        if job is not None:
            (self.root / "job.yaml").touch()  # read-only later: the mount needs a place
            mounts.append({"destination": "/job.yaml", "source": str(job), "options": ["bind", "ro"]})
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": True},
            "process": {
                "args": list(command),
                "cwd": self.config["WorkingDir"],
                "env": self.config["Env"],
                "user": {"uid": int(user), "gid": int(group)},
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        }


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Container]]:
    """Unpack an image once; a gigabyte each, so not left behind."""
    folder = tmp_path_factory.mktemp("images")

    @functools.cache
    def container(image: str) -> Container:
        try:
            (archive,) = archives([image])
        except Unavailable as problem:
            unavailable(str(problem))
        return Container(archive, folder / image)

    yield container
    shutil.rmtree(folder)


@pytest.fixture(params=["runtime", "operator"])
def container(request: pytest.FixtureRequest, unpacked: Callable[[str], Container]) -> Container:
    return unpacked(request.param)


@pytest.fixture
def runtime(unpacked: Callable[[str], Container]) -> Container:
    return unpacked("runtime")


def test_its_command_runs_as_65532_on_a_read_only_root(container: Container) -> None:
    (command,) = container.config["Entrypoint"]
    assert container.run(command, "--help").returncode == 0
    shell = container.run("sh", "-c", "id -u; touch /tmp/x && ! touch /opt/engram/x")
    assert (shell.returncode, shell.stdout) == (0, "65532\n")


def test_version_and_licence_are_labels(container: Container) -> None:
    labels = container.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"] == container.archive.image.partition(":")[0]


def test_no_compiler_no_pip_no_package_cache_inside(container: Container) -> None:
    found = [name for name in ("cc", "gcc", "g++", "make", "pip", "pip3") if _in_path(container, name)]
    assert found == []
    assert list((container.root / "var/lib/apt/lists").iterdir()) == []
    assert not (container.root / "root/.cache").exists()


def test_every_module_is_compiled(container: Container) -> None:
    (packages,) = container.root.glob("opt/engram/lib/python3*/site-packages")
    sources = [path for path in packages.glob("engram*/**/*.py") if path.is_file()]
    assert sources
    assert [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.*"))] == []


def test_the_aggregators_sums_are_compiled(runtime: Container) -> None:
    code = "from engram.federation import kernel; raise SystemExit(not kernel.COMPILED)"
    assert runtime.run("python", "-c", code).returncode == 0


def test_size(container: Container) -> None:
    image = container.archive.image.removeprefix("engram-").partition(":")[0]
    assert container.archive.path.stat().st_size / 1e6 < MEGABYTES[image]


def test_a_job_is_trained_inside(runtime: Container) -> None:
    options = [
        "--set",
        "training.roundsPerTask=1",
        "--set",
        "training.localEpochs=1",
        "--set",
        "tasks.count=2",
    ]
    command = ["engram", "run", "/job.yaml", "--transport", "in-process", "--out", "/tmp/out", *options]
    done = runtime.run(*command, job=ROOT / "examples/01-digits.yaml")
    assert done.returncode == 0, done.stderr


def test_unchanged_sources_build_nothing(runtime: Container) -> None:
    before = runtime.archive.path.stat().st_mtime_ns
    (again,) = archives(["runtime"])
    if again.key != runtime.archive.key:
        pytest.skip("the sources have changed meanwhile")
    assert again.path.stat().st_mtime_ns == before


def _in_path(container: Container, name: str) -> bool:
    (path,) = (item[5:] for item in container.config["Env"] if item.startswith("PATH="))
    folders = path.split(":")
    return any(shutil.which(name, path=str(container.root / folder.lstrip("/"))) for folder in folders)
