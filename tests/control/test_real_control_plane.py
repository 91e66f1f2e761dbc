"""The cluster of the tests itself: real controllers and scheduler at work, and nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.cluster import context, lifecycle
from tests.cluster.__main__ import main
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.audit import count_writes, requests
from tests.cluster.control_plane import API_SERVER, PROGRAMS, ControlPlane
from tests.cluster.fake_kubelet import Ending, FakeKubelet, end_pod
from tests.cluster.fake_nodes import Taint, set_ready
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.cluster.processes import Identity, Processes
from tests.cluster.state import CACHE_VARIABLE, ClusterDirectory
from tests.cluster.waiting import NotYet, until

pytestmark = pytest.mark.control


def batch_job(namespace: str, name: str = "work", **spec: object) -> Object:
    """Return a Job of one container that nobody runs."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none:1"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {**pod, **spec}}, "completions": 2, "parallelism": 2},
    }


def pods_in(api: Api, namespace: str, phase: str, number: int) -> list[Object]:
    """Wait for so many pods in a phase; return them."""

    def there() -> list[Object]:
        pods = api.list("Pod", namespace)
        found = [pod for pod in pods if pod["status"]["phase"] == phase]
        if len(found) != number:
            raise NotYet(f"{[pod['status']['phase'] for pod in pods]}")
        return found

    return until(there, f"{number} pods {phase}")


def finished(api: Api, namespace: str, condition: str) -> bool:
    """Tell whether the Job has a condition."""
    found = api.get("Job", "work", namespace)["status"].get("conditions") or ()
    return any(item["type"] == condition and item["status"] == "True" for item in found)


@pytest.mark.usefixtures("fake_kubelet")
def test_a_job_makes_pods_that_run_on_fake_nodes_and_end_as_told(
    api: Api, namespace: str, fake_node: FakeNodes
) -> None:
    fake_node("fake-one")
    api.create(batch_job(namespace))
    running = pods_in(api, namespace, "Running", 2)
    assert {pod["spec"]["nodeName"] for pod in running} == {"fake-one"}
    assert len({pod["status"]["podIP"] for pod in running}) == 2
    assert all(pod["status"]["containerStatuses"][0]["ready"] for pod in running)
    end_pod(api, running[0], Ending(0, "accuracy 0.9"))
    end_pod(api, running[1], Ending(137, reason="OOMKilled"))
    done = pods_in(api, namespace, "Succeeded", 1)[0]
    assert done["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "accuracy 0.9"
    lost = pods_in(api, namespace, "Failed", 1)[0]
    assert lost["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_fake_kubelet_can_decide_how_pods_end(api: Api, namespace: str, fake_node: FakeNodes) -> None:
    fake_node("fake-one")
    with FakeKubelet(api, lambda pod: Ending()):
        api.create(batch_job(namespace))
        until(lambda: finished(api, namespace, "Complete"), "the Job to complete")


@pytest.mark.usefixtures("fake_kubelet")
def test_a_suspended_job_takes_its_pods_away(api: Api, namespace: str, fake_node: FakeNodes) -> None:
    fake_node("fake-one")
    api.create(batch_job(namespace))
    pods_in(api, namespace, "Running", 2)
    api.patch("Job", "work", {"spec": {"suspend": True}}, namespace=namespace)
    until(lambda: not api.list("Pod", namespace), "the pods to go")


def test_the_scheduler_minds_labels_taints_and_gpus(api: Api, namespace: str, fake_node: FakeNodes) -> None:
    fake_node("fake-edge", labels={"place": "edge"}, taints=[Taint("place")])
    fake_node("fake-gpu", labels={"place": "cloud"}, capacity={"nvidia.com/gpu": "1"})
    gpu = [
        {"name": "main", "image": "none:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
    ]
    api.create(batch_job(namespace, "gpu", containers=gpu))
    tolerated = {"tolerations": [{"key": "place", "operator": "Exists"}]}
    api.create(batch_job(namespace, "edge", nodeSelector={"place": "edge"}, **tolerated))
    api.create(batch_job(namespace, "nowhere", nodeSelector={"place": "moon"}))

    def decided() -> dict[str, list[str]]:
        """Node of each pod by Job, `-` for one that the scheduler has refused."""
        found: dict[str, list[str]] = {}
        for pod in api.list("Pod", namespace):
            conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions") or ()}
            if "PodScheduled" not in conditions:
                raise NotYet(f"{pod['metadata']['name']} waits for the scheduler")
            name = pod["metadata"]["labels"]["job-name"]
            found.setdefault(name, []).append(pod["spec"].get("nodeName", "-"))
        if sum(map(len, found.values())) < 6:
            raise NotYet(f"of three Jobs with two pods each there are {found}")
        return {name: sorted(nodes) for name, nodes in found.items()}

    assert until(decided, "the scheduler's decisions") == {
        "gpu": ["-", "fake-gpu"],
        "edge": ["fake-edge", "fake-edge"],
        "nowhere": ["-", "-"],
    }


def test_a_lost_fake_node_is_tainted_by_the_real_controller(api: Api, fake_node: FakeNodes) -> None:
    fake_node("fake-one")
    set_ready(api, "fake-one", False)

    def tainted() -> bool:
        taints = api.get("Node", "fake-one")["spec"].get("taints") or ()
        return {"node.kubernetes.io/unreachable"} <= {taint["key"] for taint in taints}

    until(tainted, "the taint of an unreachable node")


def test_the_audit_log_counts_who_wrote_what(control_plane: Cluster, namespace: str) -> None:
    log, since = control_plane.audit_log, datetime.now(UTC)
    client = Api(control_plane.kubeconfig, agent="counted/1")
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    client.create(item)
    with pytest.raises(ApiError):
        client.create(item)
    client.get("ConfigMap", "a", namespace)
    client.patch("ConfigMap", "a", {"data": {"x": "y"}}, namespace=namespace)
    client.close()
    counted = count_writes(log, agent="counted/", namespace=namespace, since=since)
    assert counted == {("create", "configmaps"): 2, ("patch", "configmaps"): 1}
    asked = list(requests(log, user="admin", agent="counted/1"))
    assert [(one.verb, one.code, one.name) for one in asked] == [
        ("create", 201, "a"),
        ("create", 409, "a"),
        ("get", 200, "a"),
        ("patch", 200, "a"),
    ]
    assert count_writes(log, agent="counted/", since=datetime.now(UTC)).total() == 0


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    """Processes of a folder of this test."""
    return Processes(tmp_path, tmp_path)


def test_a_process_outlives_its_starter_and_is_ended_by_another(processes: Processes, tmp_path: Path) -> None:
    start = (
        "import os, pathlib, sys; from tests.cluster.processes import Processes; "
        "folder = pathlib.Path(sys.argv[1]); "
        "Processes(folder, folder).start('sleeper', ['sleep', '1000']); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", start, tmp_path], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    pid = processes.pid("sleeper")
    assert pid is not None
    assert processes.memory("sleeper") > 0
    with pytest.raises(RuntimeError, match="sleeper runs already: stop it first"):
        processes.start("sleeper", ["sleep", "1000"])
    assert processes.stop_all() == ["sleeper"]
    assert not Path(f"/proc/{pid}").exists() or not Identity.of(pid).alive
    assert processes.stop("sleeper") is False
    assert processes.names() == []


def test_a_pid_that_was_given_to_somebody_else_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        record = Identity.of(other.pid).text.split()
        record[21] = "1"  # started long ago
        (tmp_path / "old.process").write_text(" ".join(record), encoding="utf-8")
        assert processes.pid("old") is None
        assert processes.stop("old") is False
        assert other.poll() is None
        processes.record("adopted", other.pid)
        assert processes.stop("adopted", how=signal.SIGTERM) is True
        assert processes.pid("adopted") is None


def test_what_ends_at_once_is_said_with_its_last_words(processes: Processes) -> None:
    processes.start("broken", ["sh", "-c", "echo no such flag >&2; exit 3"])
    until(lambda: processes.pid("broken") is None, "the end of it")
    with pytest.raises(RuntimeError, match=r"broken has ended; its log .* ends with\nno such flag"):
        processes.check("broken")


def test_the_cluster_of_a_pytest_that_was_killed_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with subprocess.Popen(["sleep", "1000"]) as owner:
        left, living = ClusterDirectory.named("left"), lifecycle.own_directory()
        for directory in (left, living):
            directory.create()
            directory.processes().start("sleeper", ["sleep", "1000"])
        left.write("owner", Identity.of(owner.pid).text)
        living.own()
        assert lifecycle.sweep() == []
        owner.kill()
    pid = left.processes().pid("sleeper")
    assert pid is not None
    assert lifecycle.sweep() == ["left"]
    assert not left.exists
    assert living.processes().pid("sleeper") is not None
    lifecycle.down(living)
    lifecycle.down(living)  # once more is no error


def test_a_cluster_stands_beside_another_and_its_api_server_restarts(
    control_plane: Cluster, tmp_path: Path
) -> None:
    directory = ClusterDirectory(tmp_path / "second")
    lifecycle.up(directory)
    second = ControlPlane.load(directory)
    assert second is not None
    api = Api(directory.kubeconfig)
    try:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-here"}})
        with pytest.raises(ApiError, match="404"):
            control_plane.api.get("Namespace", "only-here")
        before = directory.processes().pid(API_SERVER)
        second.restart(API_SERVER)
        assert directory.processes().pid(API_SERVER) != before
        assert api.get("Namespace", "only-here")["status"]["phase"] == "Active"
    finally:
        api.close()
        pids = [directory.processes().pid(name) for name in PROGRAMS]
        lifecycle.down(directory)
    assert None not in pids
    assert not directory.exists
    assert [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()] == []  # a zombie has no exe


OTHER = """\
apiVersion: v1
kind: Config
clusters: [{name: work, cluster: {server: "https://192.0.2.1"}}]
users: [{name: me, user: {token: secret}}]
contexts: [{name: work, context: {cluster: work, user: me}}]
current-context: work
"""


def test_a_cluster_by_hand_is_a_context_of_the_users_kubeconfig(
    control_plane: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = control_plane.control_plane
    if own is None:
        pytest.skip("a cluster of the user's is in a kubeconfig already")
    file = tmp_path / "config"
    file.write_text(OTHER, encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(file))
    context.use(own.directory, own)
    plain = [str(control_plane.kubectl.program), "get", "--raw", "/version"]
    assert '"major": "1"' in subprocess.run(plain, capture_output=True, text=True, check=True).stdout
    context.forget(own.directory)
    left = yaml.safe_load(file.read_text(encoding="utf-8"))
    before = yaml.safe_load(OTHER)
    assert {key: left[key] for key in ("clusters", "users", "contexts")} == {
        key: before[key] for key in ("clusters", "users", "contexts")
    }
    context.forget(own.directory)  # once more is no error


def test_a_service_account_has_its_own_rights_only(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = control_plane.kubeconfig_of(namespace, "default", tmp_path)
    client = Api(kubeconfig)
    with pytest.raises(ApiError, match=f'User "system:serviceaccount:{namespace}:default" cannot list') as no:
        client.list("Pod", namespace)
    client.close()
    assert no.value.code == 403


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    name = f"no-such-{tmp_path.name}"
    assert main(["kubeconfig", "--name", name]) == 1
    assert "start it by 'python -m tests.cluster up'" in capsys.readouterr().err
    assert main(["status", "--name", name]) == 1
    assert main(["down", "--name", name]) == 0
