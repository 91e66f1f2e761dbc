"""What goes wrong around KubeEdge, and who says so: the status of the job, or the cluster of the tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from engram.spec.names import Label, Phase, Reason
from tests.cluster import cloudcore, edgecore
from tests.cluster.api import Api, Object
from tests.cluster.fixtures import unavailable
from tests.cluster.node_level import EDGE_TAINT, NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.broken import pinned
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.reference import run_here
from tests.e2e.test_jobs import small

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(400)]

NAME = "digits"
NODE = "edge2"
CRD = "devicemodels.devices.kubeedge.io"
MISSING = "engram-runtime:0.0.0-missing"
"""There is no such image, and no registry that could have it."""
EXPOSED: Object = {"expose": {"type": "NodePort"}}
HOUR = 3600


def says(jobs: Jobs, reason: Reason, seconds: float = 120) -> str:
    """Wait until the status of the job gives `reason`; return the sentence."""
    found = jobs.reach(NAME, lambda status: status.get("reason") == reason, f"reason {reason}", seconds)
    return str(found["message"])


def test_without_its_crds_cloudcore_is_not_started(level: NodeLevel) -> None:
    level.cloudcore.stop()
    try:
        level.kubectl().delete("crd", CRD)
        with pytest.raises(RuntimeError, match=rf"KubeEdge's CRDs are missing: {CRD}; .*Apply build/crds of"):
            level.start_cloudcore()
    finally:
        level.cloudcore.install(level.kubectl())
        level.start_cloudcore()
        level.wait_ready()


def test_a_node_without_the_edge_role_takes_no_edge_worker_and_both_say_so(
    jobs: Jobs, level: NodeLevel
) -> None:
    role, kubectl = str(Label.EDGE_NODE), level.kubectl()
    kubectl.run("label", "node", NODE, f"{role}-")
    try:
        with pytest.raises(
            TimeoutError, match=f"{NODE} is registered without the edge role: no job is placed"
        ):
            level.wait_ready([NODE], seconds=2)
        jobs.apply(build_job(NAME, small(workers=[pinned("edge", NODE)], aggregator=EXPOSED)))

        words = says(jobs, Reason.UNSCHEDULABLE)
    finally:
        kubectl.run("label", "node", NODE, f"{role}=")

    assert "label a node as the job asks (placement edge: node-role.kubernetes.io/edge)" in words
    jobs.in_phase(NAME, Phase.SUCCEEDED)


def no_pods(level: NodeLevel) -> bool:
    """Tell whether the node has no pods: none could be removed after it has forgotten them."""
    api = level.api()
    left = [pod["metadata"]["name"] for pod in api.list("Pod") if node_of(pod) == NODE]
    api.close()
    if left:
        raise NotYet(", ".join(left))
    return True


@contextmanager
def registered_anew(level: NodeLevel) -> Iterator[None]:
    """Let node and cluster forget each other; at the end the node registers itself with a good token.

    A node that has forgotten while the cluster has not is never well again (docs/kubeedge.md).
    """
    node = level.nodes[NODE]
    until(lambda: no_pods(level), f"the end of the pods of {NODE}", seconds=150)
    edgecore.stop(node)
    shutil.rmtree(edgecore.folder(node))
    level.kubectl().delete("node", NODE)
    try:
        yield
    finally:
        edgecore.stop(node)
        shutil.rmtree(edgecore.folder(node))
        level.start_agent(node)
        level.wait_ready([NODE])


def expired_token(api: Api) -> str:
    """Return a token as cloudcore makes them, that was good until an hour ago."""
    secret = api.get("Secret", "casecret", cloudcore.NAMESPACE)["data"]
    ca, key = (base64.b64decode(secret[name]) for name in ("cadata", "cakeydata"))

    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    claims: Mapping[str, int] = {"exp": int(time.time()) - HOUR}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = encoded(hmac.new(key, signed.encode(), hashlib.sha256).digest())
    return f"{hashlib.sha256(ca).hexdigest()}.{signed}.{signature}"


@pytest.mark.parametrize(
    ("fault", "why"),
    [("expired", "token is expired"), ("of another cloudcore", "failed to validate CA certificate")],
)
def test_a_node_that_is_not_let_in_says_that_its_token_is_no_good(
    fault: str, why: str, level: NodeLevel, api: Api
) -> None:
    node = level.nodes[NODE]
    token = expired_token(api) if fault == "expired" else f"{'0' * 64}.a.b.c"

    with registered_anew(level):
        edgecore.start(node, level.cloudcore.address, token=token, taints=[EDGE_TAINT])
        with pytest.raises(RuntimeError, match=f"cloudcore did not let node {NODE} in: .*{why}") as refused:
            edgecore.until_registered(node)

    assert "take a fresh one: kubectl -n kubeedge get" in str(refused.value)


def test_an_image_that_the_node_lacks_is_named_with_the_node(jobs: Jobs) -> None:
    group = {**pinned("edge", NODE), "image": MISSING}
    jobs.apply(build_job(NAME, small(workers=[group], aggregator=EXPOSED)))

    words = says(jobs, Reason.IMAGE_PULL_FAILED)

    assert MISSING in words
    assert f"load it on node {NODE}" in words


def test_clocks_that_differ_by_an_hour_change_nothing(jobs: Jobs, level: NodeLevel, tmp_path: Path) -> None:
    """The worker's clock: nothing shifts that of a whole node without shifting the machine's."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        unavailable("no libfaketime: on Debian and Ubuntu 'apt-get install libfaketime'")
    groups = []
    for name, node, shift in (("fast", "edge1", HOUR), ("slow", "edge2", -HOUR)):
        folder = level.nodes[node].root / "srv/clock"
        folder.mkdir(exist_ok=True)
        shutil.copy(libraries[0], folder)
        groups.append(with_clock(pinned(name, node), shift))
    job = build_job(NAME, small(workers=groups, aggregator=EXPOSED))

    jobs.apply(job)
    jobs.in_phase(NAME, Phase.SUCCEEDED)

    assert jobs.matrix(NAME) == run_here(job, tmp_path)


def with_clock(group: Object, shift: int) -> Object:
    """Return a group of workers whose clock is so many seconds ahead."""
    main = {
        "name": "main",
        "env": [
            {"name": "LD_PRELOAD", "value": "/clock/libfaketimeMT.so.1"},
            {"name": "FAKETIME", "value": f"{shift:+d}"},
        ],
        "volumeMounts": [{"name": "clock", "mountPath": "/clock", "readOnly": True}],
    }
    spec = {
        **group["podTemplate"]["spec"],
        "containers": [main],
        "volumes": [{"name": "clock", "hostPath": {"path": "/srv/clock", "type": "Directory"}}],
    }
    return {**group, "podTemplate": {"spec": spec}}
