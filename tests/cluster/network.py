"""The wires of a cluster: a network namespace for the control plane, one for each node, nothing on the host.

kubelet refuses a loopback address, and a fault needs a cable that can be cut. So a bridge in the control
plane's namespace joins the nodes, each by a pair of virtual interfaces: `v-edge1` at the bridge, `eth0` in
the node. The host itself is not connected; it reaches the API server through `relay`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL_ADDRESS = "10.77.0.1"
"""The control plane, and every node's default gateway."""
POD_NETWORK = "10.244.0.0/16"
_FIRST_NUMBER = 11
_BRIDGE = "cables"
_INWARD = ("-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
"""Packets that open a connection from outside."""


@dataclass(frozen=True)
class Place:
    """Where a node is on the network."""

    name: str
    number: int
    """Last part of its address, and its part of the pods' network."""

    @property
    def address(self) -> str:
        """The node's address."""
        return f"10.77.0.{self.number}"

    @property
    def pods(self) -> str:
        """The network of the node's pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def cable(self) -> str:
        """The control plane's end of the node's cable."""
        return f"v-{self.name}"


def places(names: Sequence[str]) -> tuple[Place, ...]:
    """Return a place for each node: 10.77.0.11, .12 and so on. Raises ValueError for a name that fits no
    interface (at most 13 characters).
    """
    for name in names:
        if len(name) > 13 or not name.isalnum():
            raise ValueError(f"node {name}: use at most 13 letters and digits")
    return tuple(Place(name, _FIRST_NUMBER + index) for index, name in enumerate(names))


@dataclass(frozen=True)
class Network:
    """The namespaces of one cluster; their names begin with `prefix`, so that clusters do not meet."""

    prefix: str
    places: tuple[Place, ...]

    @property
    def control(self) -> str:
        """Network namespace of the control plane."""
        return self.prefix

    def namespace(self, name: str) -> str:
        """Return the network namespace of the node `name`."""
        return f"{self.prefix}-{name}"

    def up(self) -> None:
        """Make namespaces, bridge, cables and routes, from whatever was left of them."""
        self.down()
        _ip(f"netns add {self.control}")
        _configure(
            self.control,
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"addr add {CONTROL_ADDRESS}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
            # It leads nowhere, but what looks for its default route (KubeEdge's cloudcore) finds one.
            f"route add default via {CONTROL_ADDRESS}",
        )
        for place in self.places:
            self._connect(place)
        for namespace in self._namespaces():
            _inside(namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def down(self) -> None:
        """Delete the namespaces that there are, with all that is in them."""
        existing = {path.name for path in Path("/run/netns").glob(f"{self.prefix}*")}
        for namespace in self._namespaces():
            if namespace in existing:
                _ip(f"netns delete {namespace}")

    def cut(self, name: str) -> None:
        """Cut the cable of a node: nothing gets in or out any more."""
        _configure(self.control, f"link set v-{name} down")

    def mend(self, name: str) -> None:
        """Mend the cable of a node."""
        _configure(self.control, f"link set v-{name} up")

    def shut(self, name: str) -> None:
        """Let no connection into a node and its pods; what they open themselves goes out and is answered."""
        for chain in ("INPUT", "FORWARD"):
            _inside(self.namespace(name), "iptables", "--insert", chain, *_INWARD)

    def open(self, name: str) -> None:
        """Let connections in again."""
        for chain in ("INPUT", "FORWARD"):
            _inside(self.namespace(name), "iptables", "--delete", chain, *_INWARD)

    def meter(self, name: str) -> None:
        """Count the bytes of a node from now on, for `metered`; once for each cluster."""
        for chain, (source, target) in self._meters(name):
            _inside(self.namespace(name), "iptables", "--insert", chain, "-s", source, "-d", target)

    def metered(self, name: str) -> tuple[int, int]:
        """Return the bytes between a node and the control plane, and between its pods and the world."""
        counted = []
        for chain, (source, target) in self._meters(name):
            lines = _inside(self.namespace(name), "iptables", "-L", chain, "-nvx").splitlines()
            found = [line.split() for line in lines]
            counted.append(sum(int(words[1]) for words in found if words[-2:] == [source, target]))
        return counted[0] + counted[1], counted[2] + counted[3]

    def _meters(self, name: str) -> list[tuple[str, tuple[str, str]]]:
        """Return chains, and from where to where: the node's own traffic, then that of its pods."""
        pods = next(place.pods for place in self.places if place.name == name)
        anywhere = "0.0.0.0/0"
        return [
            ("INPUT", (CONTROL_ADDRESS, anywhere)),
            ("OUTPUT", (anywhere, CONTROL_ADDRESS)),
            ("FORWARD", (pods, anywhere)),
            ("FORWARD", (anywhere, pods)),
        ]

    def refuses(self, name: str, port: int) -> bool:
        """Tell whether nobody answers at a port of a node, asked from the control plane."""
        address = next(place.address for place in self.places if place.name == name)
        return not answers(self.control, address, port)

    def _connect(self, place: Place) -> None:
        """Give a node its namespace, cable and routes."""
        namespace = self.namespace(place.name)
        _ip(f"netns add {namespace}")
        _configure(
            self.control,
            f"link add {place.cable} type veth peer name eth0 netns {namespace}",
            f"link set {place.cable} master {_BRIDGE} up",
            f"route add {place.pods} via {place.address}",
        )
        _configure(
            namespace,
            "link set lo up",
            f"addr add {place.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {CONTROL_ADDRESS}",
            # kubelet looks for a cloud's metadata server: tell it at once that there is none.
            "route add unreachable 169.254.169.254",
            *(f"route add {other.pods} via {other.address}" for other in self.places if other != place),
        )

    def _namespaces(self) -> list[str]:
        """Return the names of all namespaces, the control plane's last (it holds the bridge)."""
        return [*(self.namespace(place.name) for place in self.places), self.control]


def answers(namespace: str, address: str, port: int) -> bool:
    """Tell whether somebody accepts connections at a port, asked from inside a network namespace."""
    try:
        _inside(namespace, "timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}")
    except RuntimeError:
        return False
    return True


def _ip(command: str) -> None:
    """Run one `ip` command. Raises RuntimeError with its words."""
    _run(["ip", *command.split()])


def _configure(namespace: str, *commands: str) -> None:
    """Run `ip` commands in a network namespace, in one process."""
    _run(["ip", "-n", namespace, "-batch", "-"], "\n".join(commands))


def _inside(namespace: str, *command: str) -> str:
    """Run a command in a network namespace; return its output."""
    return _run(["ip", "netns", "exec", namespace, *command])


def _run(command: list[str], text: str | None = None) -> str:
    """Run a command; return its output. Raises RuntimeError with what it said."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
