"""The project's images without a registry: a base image by debootstrap, then the Dockerfiles of `images/`.

Nodes of the test cluster import what lies here as archives. Everything is kept in the cache (storage of
buildah, pip's cache, archives) and made anew only when its inputs changed: the base image when its packages
did, an archive when a file did that its Dockerfile copies. Needs root, debootstrap and buildah.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engram import __version__
from tests.cluster.binaries import Unavailable
from tests.cluster.locking import locked
from tests.cluster.state import cache_folder

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "libstdc++6", "python3")
"""What the images stand on, beside Debian's minimal system."""
BUILDER_PACKAGES = ("python3-venv", "libpython3-dev")
"""What they are built in, beside that."""
NEEDLESS = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt/lists",
    "var/log",
)
"""Folders of the base image that are emptied."""

MOST_GIGABYTES = 20
"""What buildah's layers may take; beyond that they are dropped, and the next build starts from nothing."""

IMAGES = ("runtime", "operator")
ROOT = Path(__file__).resolve().parents[2]
_INPUTS = (
    "images",
    "engram",
    "operator",
    "pyproject.toml",
    "hatch_build.py",
    "constraints.txt",
    "README.md",
    "LICENSE",
)
_TOOLS = ("buildah", "debootstrap")


@dataclass(frozen=True)
class Archive:
    """An image as a file that `ctr -n k8s.io images import` takes."""

    image: str
    """Name as pods say it: `engram-runtime:0.1.0`."""
    path: Path
    """docker-archive; its name never changes, its content does."""
    key: str
    """Digest of everything that the image was made from: a node that has imported it needs no other."""


def archive_path(image: str) -> Path:
    """Return where the archive of `runtime` or `operator` lies, built or not."""
    return _folder() / f"engram-{image}-{__version__}.tar"


def archives(images: Sequence[str] = IMAGES) -> tuple[Archive, ...]:
    """Return the archives of `images`, building what is missing or older than its sources.

    Minutes and about 1 GB the first time, then seconds. Raises Unavailable, whose text is one line to show,
    where images cannot be made, and RuntimeError where their Dockerfile or source is wrong.
    """
    _folder().mkdir(parents=True, exist_ok=True)
    with locked(_folder() / ".lock"):
        key = _digest(_sources())
        found = []
        for image in images:
            archive = Archive(f"engram-{image}:{__version__}", archive_path(image), key)
            if not _current(archive):
                try:
                    _build(image, archive)
                finally:
                    _tidy()
            found.append(archive)
        return tuple(found)


def base_archives(folder: Path) -> dict[str, Path]:
    """Write the base image and the one to build in into `folder`, for other tools; return their names.

    Raises as `archives` does.
    """
    _folder().mkdir(parents=True, exist_ok=True)
    with locked(_folder() / ".lock"):
        found = {name: folder / f"{number}.tar" for number, name in enumerate(_base_images())}
        for name, path in found.items():
            _run(["buildah", "push", "--quiet", name, f"docker-archive:{path}:{name}"], f"archive of {name}")
    return found


def _folder() -> Path:
    return cache_folder() / "images"


def _current(archive: Archive) -> bool:
    """Tell whether the archive that is there was made from what is there now."""
    noted = archive.path.with_suffix(".key")
    return archive.path.is_file() and noted.is_file() and noted.read_text(encoding="utf-8") == archive.key


def _build(image: str, archive: Archive) -> None:
    """Build an image and put it into its archive."""
    base, builder = _base_images()
    options = ["--tool=buildah", f"--base={base}", f"--builder={builder}"]
    _run([sys.executable, ROOT / "images/build", *options, image], f"image {archive.image}")
    partial, noted = archive.path.with_suffix(".partial"), archive.path.with_suffix(".key")
    partial.unlink(missing_ok=True)
    target = f"docker-archive:{partial}:{archive.image}"
    _run(["buildah", "push", "--quiet", archive.image, target], f"archive of {archive.image}")
    noted.unlink(missing_ok=True)
    partial.replace(archive.path)
    noted.write_text(archive.key, encoding="utf-8")


def _tidy() -> None:
    """Unmount what a failed build has left, and drop all layers once they are too many."""
    _run(["buildah", "rm", "--all"], "tidying up")
    size = _run(["du", "--summarize", "--block-size=1G", _folder() / "storage"], "tidying up")
    if int(size.split()[0]) > MOST_GIGABYTES:
        _run(["buildah", "rmi", "--all", "--force"], "tidying up")


def _base_images() -> tuple[str, str]:
    """Return the names of the base image and of the one to build in, made if need be."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise Unavailable(
            f"images need {' and '.join(missing)}: on Debian 'apt-get install {' '.join(missing)}'"
        )
    if os.geteuid() != 0:
        raise Unavailable("images are made by debootstrap, which needs root")
    tag = _digest([SUITE, *PACKAGES, "/", *BUILDER_PACKAGES, "/", *NEEDLESS])[:12]
    base, builder = f"localhost/engram-base:{tag}", f"localhost/engram-builder:{tag}"
    if not _exists(base):
        with tempfile.TemporaryDirectory(prefix="base-", dir=_folder()) as folder:
            _bootstrap(Path(folder))
            _commit("scratch", base, add=Path(folder))
    if not _exists(builder):
        install = (
            f"apt-get update -qq && apt-get install -qq --no-install-recommends {' '.join(BUILDER_PACKAGES)}"
        )
        _commit(base, builder, run=["sh", "-c", install])
    return base, builder


def _bootstrap(folder: Path) -> None:
    """Fill `folder` with a minimal Debian that has Python."""
    folder.chmod(0o755)
    packages = f"--include={','.join(PACKAGES)}"
    try:
        _run(["debootstrap", "--variant=minbase", packages, SUITE, folder], "base image by debootstrap")
    except RuntimeError as problem:
        raise Unavailable(str(problem)) from problem
    for name in NEEDLESS:
        for path in (folder / name).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (folder / "etc/resolv.conf").unlink(missing_ok=True)  # debootstrap copied this machine's
    (folder / "etc/hostname").unlink(missing_ok=True)


def _commit(start: str, name: str, *, add: Path | None = None, run: Sequence[str] = ()) -> None:
    """Make the image `name` from `start`, a folder and a command."""
    container = _run(["buildah", "from", start], name).strip()
    try:
        if add is not None:
            _run(["buildah", "add", "--quiet", container, add], name)
        if run:
            _run(["buildah", "run", container, "--", *run], name)
        _run(["buildah", "commit", "--quiet", container, name], name)
    finally:
        _run(["buildah", "rm", container], name)


def _exists(image: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", image]
    return subprocess.run(command, env=_environment(), capture_output=True, check=False).returncode == 0


def _environment() -> dict[str, str]:
    """Return the environment for buildah: its storage and caches in our folder, no container runtime."""
    settings, temporary = _folder() / "storage.conf", _folder() / "tmp"
    temporary.mkdir(exist_ok=True)
    driver = os.environ.get("STORAGE_DRIVER") or _driver()
    storage = {"driver": driver, "graphroot": str(_folder() / "storage"), "runroot": str(_folder() / "run")}
    lines = [f'{name} = "{value}"' for name, value in storage.items()]
    settings.write_text("[storage]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return os.environ | {
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(settings),
        "DEBIAN_FRONTEND": "noninteractive",
        "TMPDIR": str(temporary),
    }


def _driver() -> str:
    """Return a storage driver that works here: overlay does not stand on another overlay."""
    command: list[str | Path] = ["stat", "--file-system", "--format=%T", _folder()]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "vfs" if kind == "overlayfs" else "overlay"


def _run(command: Sequence[str | Path], what: str) -> str:
    """Run a command of the build and return what it printed. Raises RuntimeError with its last line."""
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        log = _folder() / "failed.log"
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        raise RuntimeError(
            f"{what} cannot be built: {lines[-1] if lines else 'no output'} (all of it: {log})"
        )
    return done.stdout


def _sources() -> Iterator[str]:
    """Yield everything that decides what is in the images: names and digests of files, packages, machine."""
    yield from (SUITE, *PACKAGES, *BUILDER_PACKAGES, *NEEDLESS, platform.machine())
    for name in _INPUTS:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".md", ".so"):
                yield f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}"


def _digest(parts: Sequence[str] | Iterator[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> None:
    """Build what is missing and print where it lies: `python -m tests.cluster.base_image`."""
    try:
        for archive in archives():
            size = archive.path.stat().st_size / 1e6
            print(f"{archive.image}  {size:.0f} MB  {archive.path}")
    except (Unavailable, RuntimeError) as problem:
        raise SystemExit(str(problem)) from None


if __name__ == "__main__":
    main()
