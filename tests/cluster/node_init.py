"""The first steps of process 1 of a node: its own /proc, /sys, /run and state, and then the pause program.

Run as a script by `node`, inside the new mount, pid, uts, ipc and cgroup namespaces, by the bare interpreter:
nothing but the standard library here. Everything is mounted in the node's own mount namespace only, so it
goes with the node, also when the node's power is cut.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

STATE = (
    "var/lib/kubelet",
    "var/lib/containerd",
    "var/lib/cni",
    "var/log/pods",
    "var/log/containers",
    "etc/cni/net.d",
    "srv",
)
"""What each node has for itself: paths that kubelet and containerd insist on, /srv for hostPath volumes."""

SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet would write for the whole machine: it is shown that all is well already."""


def mount(*arguments: str) -> None:
    """Run mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


def private_run() -> None:
    """Mount an empty /run, without the network namespaces that the host keeps there."""
    subprocess.run(["umount", "--recursive", "--lazy", "/run/netns"], check=False, stderr=subprocess.DEVNULL)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in ("/run/lock", "/run/netns", "/run/fake"):
        os.makedirs(folder)


def private_cgroups(hierarchies: list[str]) -> None:
    """Mount /sys anew with the hierarchies, whose roots are now the node's own groups."""
    subprocess.run(["umount", "--recursive", "--lazy", "/sys"], check=True)
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("-t", "tmpfs", "-o", "mode=755", "cgroup", "/sys/fs/cgroup")
    for controllers in hierarchies:
        name = controllers.removeprefix("name=")
        options = controllers if name == controllers else f"none,{controllers}"
        os.mkdir(f"/sys/fs/cgroup/{name}")
        mount("-t", "cgroup", "-o", options, "cgroup", f"/sys/fs/cgroup/{name}")
        for alias in name.split(","):
            if alias != name:
                os.symlink(name, f"/sys/fs/cgroup/{alias}")


def cover(path: str, content: str) -> None:
    """Show a file of the node's own in place of the machine's."""
    own = Path("/run/fake", path.strip("/").replace("/", "-"))
    own.write_text(content)
    mount("--bind", str(own), path)


def main(name: str, address: str, root: Path, hierarchies: list[str], pause: str) -> None:
    """Set the node up and become its process 1."""
    socket.sethostname(name)
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    private_cgroups(hierarchies)
    private_run()
    for path in STATE:
        own = root / path
        own.mkdir(parents=True, exist_ok=True)
        os.makedirs(f"/{path}", exist_ok=True)
        mount("--bind", str(own), f"/{path}")
    for key, value in SYSCTLS.items():
        cover(f"/proc/sys/{key}", f"{value}\n")
    # Each start of a node is a boot, which kubelet knows by this number.
    cover("/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    cover("/etc/hosts", f"127.0.0.1 localhost\n{address} {name}\n")
    mount("--make-rshared", "/")
    os.execv(pause, [pause])


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    main(given["name"], given["address"], Path(given["root"]), given["hierarchies"], given["pause"])
