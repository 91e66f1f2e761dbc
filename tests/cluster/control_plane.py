"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: a real control plane in seconds.

It runs either on the host's loopback with free ports, so that several stand side by side, or inside a network
namespace that nodes can reach, with a relay to the host. The audit log is always on: what the operator writes
is counted there.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.audit import POLICY
from tests.cluster.pki import ADMINISTRATORS, Authority, Pair
from tests.cluster.ports import free_port
from tests.cluster.relay import Relay
from tests.cluster.state import ClusterDirectory
from tests.cluster.waiting import NotYet, until

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
PROGRAMS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)
"""Names of the processes, in the order in which they start."""

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
"""ClusterIP of the Service `kubernetes`."""

_FAST = ("--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false", "--secure-port=0")


@dataclass(frozen=True)
class Ports:
    """TCP ports of a control plane."""

    api: int = 6443
    etcd: int = 2379
    etcd_peer: int = 2380
    host: int = 6443
    """Where the host reaches the API server: `api` itself, or the relay's port."""

    @classmethod
    def free(cls) -> Ports:
        """Return ports of the host's loopback that nobody else has."""
        api = free_port()
        return cls(api, free_port(), free_port(), api)


@dataclass(frozen=True)
class Timing:
    """How soon the control plane notices a lost node."""

    monitor_period: str = "5s"
    grace_period: str = "24h"
    """Fake nodes send no heartbeats: by default they stay as their test says."""
    startup_grace_period: str = "24h"

    def flags(self) -> list[str]:
        """Return the controller-manager's flags."""
        return [
            f"--node-monitor-period={self.monitor_period}",
            f"--node-monitor-grace-period={self.grace_period}",
            f"--node-startup-grace-period={self.startup_grace_period}",
        ]


@dataclass(frozen=True)
class ControlPlane:
    """The control plane of the cluster in `directory`."""

    directory: ClusterDirectory
    ports: Ports
    netns: str | None = None
    """Network namespace to run in; None: the host's."""
    bind: str = "127.0.0.1"
    advertise: str = "127.0.0.1"
    """Address that nodes and the Service `kubernetes` use."""
    timing: Timing = Timing()

    @classmethod
    def load(cls, directory: ClusterDirectory) -> ControlPlane | None:
        """Return the control plane that was started in `directory`, None for none."""
        facts = directory.read("control-plane")
        if not isinstance(facts, dict):
            return None
        return cls(
            directory,
            Ports(**facts["ports"]),
            facts["netns"],
            facts["bind"],
            facts["advertise"],
            Timing(**facts["timing"]),
        )

    @property
    def server(self) -> str:
        """URL of the API server for programs on the host."""
        return f"https://127.0.0.1:{self.ports.host}"

    @property
    def node_server(self) -> str:
        """URL of the API server for nodes and pods."""
        return f"https://{self.advertise}:{self.ports.api}"

    @property
    def authority(self) -> Authority:
        """The cluster's CA, for more certificates and kubeconfigs."""
        return Authority(self.directory.pki)

    def start(self) -> None:
        """Start everything and wait until the default service account exists, so that pods can be made.

        Raises binaries.Unavailable, or RuntimeError with the end of a log when a program fails. What runs
        already stays as it is.
        """
        for name in PROGRAMS:
            binaries.find(name)
        self.directory.create()
        facts = {key: value for key, value in asdict(self).items() if key != "directory"}
        self.directory.write("control-plane", facts)
        self._prepare()
        self._start(ETCD, self._etcd())
        self._start(API_SERVER, self._api_server())
        if self.netns is not None:
            self._relay.start()
        self.wait_ready()
        # Earlier, the controller-manager would end itself: RBAC is not bootstrapped yet.
        self._start(CONTROLLER_MANAGER, self._controller_manager())
        self._start(SCHEDULER, self._scheduler())
        until(self._pods_can_be_made, "the default service account", seconds=60)

    def stop(self) -> None:
        """End every process of it, at once; data and certificates stay."""
        processes = self.directory.processes()
        if self.netns is not None:
            self._relay.stop()
        for name in reversed(PROGRAMS):
            processes.stop(name)

    def restart(self, name: str) -> None:
        """End one program and start it anew; for the API server, wait until it serves."""
        self.directory.processes().stop(name)
        self.start_program(name)

    def start_program(self, name: str) -> None:
        """Start one program that was stopped; for the API server, wait until it serves."""
        commands = {
            ETCD: self._etcd,
            API_SERVER: self._api_server,
            CONTROLLER_MANAGER: self._controller_manager,
            SCHEDULER: self._scheduler,
        }
        self._start(name, commands[name]())
        if name == API_SERVER:
            self.wait_ready()

    def wait_ready(self, seconds: float = 180) -> None:
        """Wait until the API server says that it is ready. Raises RuntimeError when it has ended instead."""
        until(lambda: self._ask("/readyz"), "the API server's /readyz", seconds=seconds, every=0.05)

    def _prepare(self) -> None:
        """Write certificates, kubeconfigs and the audit policy."""
        authority, folder = self.authority, self.directory.pki
        if self.directory.kubeconfig.is_file():
            return
        authority.service_account_keys()
        (folder / "audit-policy.yaml").write_text(json.dumps(POLICY), encoding="utf-8")
        names = ["localhost", "kubernetes"]
        names += [f"kubernetes.default{rest}" for rest in ("", ".svc", ".svc.cluster.local")]
        addresses = {"127.0.0.1", SERVICE_ADDRESS, self.advertise}
        authority.issue("apiserver", "kube-apiserver", addresses=sorted(addresses), names=names)
        authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", groups=[ADMINISTRATORS])
        own = f"https://127.0.0.1:{self.ports.api}"
        authority.kubeconfig(
            CONTROLLER_MANAGER, own, user=f"system:{CONTROLLER_MANAGER}", groups=[ADMINISTRATORS]
        )
        authority.kubeconfig(SCHEDULER, own, user=f"system:{SCHEDULER}")
        authority.kubeconfig("admin", self.server, groups=[ADMINISTRATORS])  # last: it marks all as made

    def _start(self, name: str, flags: list[str]) -> None:
        """Start a program unless it runs."""
        processes = self.directory.processes()
        if processes.pid(name) is None:
            processes.start(name, [binaries.find(name), *flags], netns=self.netns)

    def _etcd(self) -> list[str]:
        """Return etcd's flags; without fsync, for its data die with the cluster."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.ports.etcd, self.ports.etcd_peer))
        return [
            "--name=engram",
            f"--data-dir={self.directory.data / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=engram={peer}",
        ]

    def _api_server(self) -> list[str]:
        """Return the API server's flags."""
        pki = self.directory.pki
        server, kubelet = _pair(pki, "apiserver"), _pair(pki, "apiserver-kubelet-client")
        return [
            f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}",
            f"--bind-address={self.bind}",
            f"--advertise-address={self.advertise}",
            f"--secure-port={self.ports.api}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--endpoint-reconciler-type=lease",
            "--allow-privileged=true",
            "--profiling=false",
            f"--audit-policy-file={pki / 'audit-policy.yaml'}",
            f"--audit-log-path={self.directory.audit_log}",
            "--audit-log-maxsize=100000",  # MB: never rotated, or what a thousand jobs wrote is not counted
        ]

    def _controller_manager(self) -> list[str]:
        """Return the controller-manager's flags."""
        pki = self.directory.pki
        return [
            f"--kubeconfig={pki / CONTROLLER_MANAGER}.kubeconfig",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            "--allocate-node-cidrs=false",  # or its node address controller waits 10 s for nothing
            "--concurrent-job-syncs=20",
            "--pvclaimbinder-sync-period=1s",  # how long a claim waits that came before its volume
            *_FAST,
            *self.timing.flags(),
        ]

    def _scheduler(self) -> list[str]:
        """Return the scheduler's flags."""
        return [f"--kubeconfig={self.directory.pki / SCHEDULER}.kubeconfig", *_FAST]

    @property
    def _relay(self) -> Relay:
        """From the host to the API server inside the namespace."""
        return Relay(self.directory, "api", self.ports.host, self.netns or "", f"127.0.0.1:{self.ports.api}")

    def _pods_can_be_made(self) -> bool:
        """Tell whether the controller-manager has made the service account that pods need."""
        for name in (CONTROLLER_MANAGER, SCHEDULER):
            self.directory.processes().check(name)
        return self._ask("/api/v1/namespaces/default/serviceaccounts/default")

    def _ask(self, path: str) -> bool:
        """Tell whether the API server answers `path` with 200."""
        for name in (ETCD, API_SERVER):
            self.directory.processes().check(name)
        pki = self.directory.pki
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.server}{path}", timeout=5, context=context):
                return True
        except urllib.error.HTTPError as error:
            with error:
                raise NotYet(f"{path} answers {error.code}") from None
        except OSError as error:
            raise NotYet(f"{path}: {error}") from None


def _pair(folder: Path, name: str) -> Pair:
    """Return the files of a certificate in `folder`."""
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")
