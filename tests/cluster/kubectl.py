"""kubectl as a user types it, with the cluster's kubeconfig."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class KubectlError(Exception):
    """kubectl ended with another code than 0; the text is what it wrote to stderr."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and, if named, one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = ""

    def inside(self, namespace: str) -> Kubectl:
        """Return kubectl for `namespace`."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Return what `kubectl ARGUMENTS` prints. Raises KubectlError, or TimeoutExpired after `seconds`."""
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        done = subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", *namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise KubectlError(done.stderr.strip() or f"kubectl ended with {done.returncode}")
        return done.stdout

    def apply(self, *what: Path | str, flags: tuple[str, ...] = ()) -> str:
        """Apply files (Path) or YAML texts (str); return what kubectl prints."""
        files = [f"--filename={item}" for item in what if isinstance(item, Path)]
        texts = [item for item in what if isinstance(item, str)]
        if texts:
            files.append("--filename=-")
        return self.run("apply", *files, *flags, stdin="\n---\n".join(texts) if texts else None)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object as plain data."""
        found: dict[str, Any] = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind that `selector` selects by label."""
        flags = [f"--selector={selector}"] if selector else []
        found: list[dict[str, Any]] = json.loads(self.run("get", kind, *flags, "--output=json"))["items"]
        return found

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """Delete an object; what is absent is no error."""
        self.run("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def wait(self, what: str, condition: str, seconds: float = 60) -> None:
        """Wait until `what` (kind/name) meets `condition`, such as `condition=Complete` or `delete`."""
        flags = (f"--for={condition}", f"--timeout={seconds:g}s")
        self.run("wait", what, *flags, seconds=seconds + 10)

    def raw(self, path: str) -> str:
        """Return the body of a GET of `path`."""
        return self.run("get", "--raw", path)
