"""A cluster started by hand becomes the current context of the user's kubeconfig, as kind and k3d do it.

Then `make deploy` and `kubectl get fij` need no options. Entries are called `engram-NAME`; ending the cluster
takes them out again and leaves the rest of the file as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.binaries import find, lookup
from tests.cluster.control_plane import ControlPlane
from tests.cluster.state import ClusterDirectory

LINKS = Path("/usr/local/bin")
"""Where kubectl and Helm are put on a machine that has none, if we may write there."""


def entry(directory: ClusterDirectory) -> str:
    """Return the name of the cluster's context, cluster and user in the user's kubeconfig."""
    return f"engram-{directory.name}"


def use(directory: ClusterDirectory, control_plane: ControlPlane) -> None:
    """Put the cluster into the user's kubeconfig as the current context. Raises RuntimeError."""
    name, pki = entry(directory), directory.pki
    authority, client = f"{pki}/ca.crt", (f"{pki}/admin.crt", f"{pki}/admin.key")
    server = (f"--server={control_plane.server}", f"--certificate-authority={authority}")
    _config("set-cluster", name, *server, "--embed-certs=true")
    files = (f"--client-certificate={client[0]}", f"--client-key={client[1]}")
    _config("set-credentials", name, *files, "--embed-certs=true")
    _config("set-context", name, f"--cluster={name}", f"--user={name}")
    _config("use-context", name)


def forget(directory: ClusterDirectory) -> None:
    """Take the cluster out of the user's kubeconfig; no error where it is not in it."""
    if lookup("kubectl") is None:
        return  # nor has it ever been in it
    name = entry(directory)
    with contextlib.suppress(RuntimeError):
        if _config("current-context").strip() == name:
            _config("unset", "current-context")
    for kind in ("context", "cluster", "user"):
        with contextlib.suppress(RuntimeError):
            _config(f"delete-{kind}", name)


def offer(name: str) -> str | None:
    """Link our kubectl or Helm into the path of a machine that has none; return a line that says so, None: it
    has.

    The link is ours to replace when it points into our cache.
    """
    program, link = find(name), LINKS / name
    if shutil.which(name):
        return None
    if os.access(LINKS, os.W_OK) and not link.exists():
        link.unlink(missing_ok=True)  # one that led to a cache which is gone
        link.symlink_to(program)
        return f"this machine had no {name}: {link} now leads to {program}"
    return f"no {name} in PATH: use {program}"


def _config(*arguments: str) -> str:
    """Return what `kubectl config ARGUMENTS` prints. Raises RuntimeError with its words."""
    done = subprocess.run(
        [find("kubectl"), "config", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl config {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
