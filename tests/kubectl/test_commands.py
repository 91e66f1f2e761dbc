"""The commands over a fake API server: what they print, and what they do when it goes away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engram.spec.names import Phase
from engram_kubectl import jobs, logs, looking
from engram_kubectl.connection import Target, connected
from engram_kubectl.errors import UnreachableError
from engram_kubectl.jobs import follow
from engram_operator.model import JobKey, Object
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.edge import raw_pod, run, until
from tests.kubectl.jobs import ended, kubeconfig, running
from tests.kubectl.test_logs import CRASH, log_of

KEY = JobKey("lab", "digits")


def watched(server: ApiServer) -> bool:
    return any("watch" in asked.query for asked in server.asked)


def test_a_cluster_that_goes_away_for_a_while_is_asked_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as server:
            await server.put(running())
            async with connected(Target(str(kubeconfig(tmp_path, server.url)))) as cluster:
                stream = follow(cluster, KEY)
                assert (await anext(stream))["status"]["phase"] == Phase.RUNNING
                more = asyncio.create_task(anext(stream))
                await until(lambda: watched(server), "the watch")
                refusals = [Refusal(503, "ServiceUnavailable", "etcd is away")]
                server.refuse = lambda asked: refusals.pop() if refusals else None
                server.disconnect()
                assert (await more)["status"]["phase"] == Phase.RUNNING
                assert refusals == []
                more = asyncio.create_task(anext(stream))
                await server.put({**ended(), "metadata": running()["metadata"]})
                assert (await more)["status"]["phase"] == Phase.SUCCEEDED
                await stream.aclose()

    run(scenario())


def test_a_cluster_that_stays_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SILENT_FOR", 0.2)
    monkeypatch.setattr(jobs, "FIRST_PAUSE", 0.05)

    async def scenario() -> None:
        async with serving() as server:
            await server.put(running())
            async with connected(Target(str(kubeconfig(tmp_path, server.url)))) as cluster:
                stream = follow(cluster, KEY)
                await anext(stream)
                server.refuse = lambda asked: Refusal(503, "ServiceUnavailable", "etcd is away")
                with pytest.raises(UnreachableError, match="is not well: etcd is away: try again"):
                    await anext(stream)

    run(scenario())


def speaker(name: str, role: str, index: str = "") -> Object:
    pod = raw_pod(name)
    pod["metadata"]["labels"] |= {"engram.dev/role": role, "engram.dev/group": "edge" if index else ""}
    pod["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": index}
    return pod


def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], worker: str, tail: int = 7) -> str:
    """What `kubectl engram logs digits WORKER` prints; the kubelet of trainworker-edge-1 cannot be asked."""

    async def scenario() -> None:
        async with serving() as server:
            await server.put(running())
            for pod in (
                speaker("a", "aggregator"),
                speaker("w0", "worker", "0"),
                speaker("w1", "worker", "1"),
            ):
                await server.put(pod)
            path = "/api/v1/namespaces/lab/pods"
            server.texts[f"{path}/a/log"] = log_of(("trainworker-edge-1", CRASH, 1))
            server.texts[f"{path}/w0/log"] = "round 1\x1b[2J\nround 2\n"

            def refuse(asked: Asked) -> Refusal | None:
                if asked.path.endswith("/w0/log"):
                    assert asked.query["tailLines"] == str(tail)
                return Refusal(502, "", "dial tcp: i/o timeout") if asked.path.endswith("/w1/log") else None

            server.refuse = refuse
            target = Target(str(kubeconfig(tmp_path, server.url)))
            assert await logs.logs(target, "digits", worker, tail) == 0

    run(scenario())
    return capsys.readouterr().out


def test_what_came_over_the_connection_stands_for_a_log_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(tmp_path, capsys, "") == (
        "==> trainworker-edge-0 <==\nround 1 [2J\nround 2\n"
        "\n==> trainworker-edge-1 <==\n"
        "the log of pod w1 on node edge1 cannot be read: dial tcp: i/o timeout\n"
        f"--> over the training connection: exit code 1: {CRASH}\n"
        "--> status: WorkerDisconnected: no sign of life since 11:58\n"
    )


def test_the_aggregators_log_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(tmp_path, capsys, "aggregator")
    assert text == f"==> aggregator <==\n{log_of(('trainworker-edge-1', CRASH, 1))}\n"


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_namespace_without_jobs_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], everywhere: bool
) -> None:
    async def scenario() -> None:
        async with serving() as server:
            target = Target(str(kubeconfig(tmp_path, server.url)))
            assert await looking.get(target, "", watch=False, everywhere=everywhere) == 0

    run(scenario())
    where = "any namespace" if everywhere else "namespace lab"
    assert capsys.readouterr().out == f"There are no jobs in {where} of context lab.\n"
