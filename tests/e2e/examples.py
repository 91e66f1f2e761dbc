"""Examples as users apply them to a cluster, whatever runs the pods of its edge nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import yaml

from engram import __version__
from engram.spec.names import Phase, Reason, Role
from engram_operator.manifests.names import checkpoint_name
from tests.cluster import gpu
from tests.cluster.api import Api, Object
from tests.cluster.containerd import ctr
from tests.cluster.images import full_name
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import until
from tests.e2e.data import write_signs
from tests.e2e.jobs import Jobs, node_of
from tests.e2e.reference import run_here
from tests.e2e.volumes import Volumes, build_claim

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUNTIME = f"engram-runtime:{__version__}"
ENFORCE = "pod-security.kubernetes.io/enforce"


def digits_end_as_here(jobs: Jobs, folder: Path) -> None:
    """Apply example 01, watched, and compare its end with the run on this machine."""
    example = EXAMPLES / "01-digits.yaml"

    with jobs.watched(folder / "watch.txt") as table:
        jobs.apply(example)
        jobs.kubectl.wait("fij/digits", "condition=Complete", seconds=300)
        until(lambda: "Succeeded" in table.phases(), "the last line of kubectl get --watch")

    jobs.kubectl.wait("fij/digits", "condition=ReportReady", seconds=120)
    assert jobs.matrix("digits") == run_here(example, folder)
    files, own = jobs.report("digits"), folder / "run"
    assert {"report.json", "report.md", "report.html", "leaderboard.csv"} <= set(files)
    there, here = json.loads(files["report.json"]), json.loads((own / "report.json").read_text())
    for part in ("matrix", "metrics", "task_accuracy", "undefined"):
        assert there[part] == here[part], part
    assert [phase for phase in table.phases() if phase != Phase.PENDING] == [
        Phase.STARTING,
        Phase.RUNNING,
        Phase.REPORTING,
        Phase.SUCCEEDED,
    ]
    tasks, rounds = table.counts(5), table.counts(30)
    assert any(0 < number < 30 for number in rounds), table.lines  # a fast machine shows few of them
    assert rounds == sorted(rounds), table.lines
    assert {1, 2, 3, 4, 5} & set(tasks), table.lines
    assert table.lines[-1].split()[:4] == ["digits", Phase.SUCCEEDED, "5/5", "30/30"]


def street_signs_train_where_they_belong(
    kubectl: Kubectl, api: Api, level: NodeLevel, volumes: Volumes, folder: Path
) -> None:
    """Apply example 05 to nodes that have its data and a GPU, and compare its end with the run here;
    `kubectl` works in no namespace.
    """
    example = EXAMPLES / "05-edge-and-gpu-workers.yaml"
    written = yaml.safe_load(example.read_text(encoding="utf-8"))
    namespace, name = written["metadata"]["namespace"], written["metadata"]["name"]
    image = next(group["image"] for group in written["spec"]["workers"] if group["name"] == "gpu")
    classes = len(written["spec"]["tasks"]["classes"])
    inside = kubectl.inside(namespace)
    inside.apply(json.dumps(_namespace(namespace, "privileged")))
    try:
        # The same images at both edge nodes: who of the two cameras is where is the scheduler's to say.
        data = {name: node.root / "srv/street-signs" for name, node in level.nodes.items()}
        for node, where in data.items():
            write_signs(where, classes, seed=int(node == "cloud"))
        archive = volumes("street-signs-archive", namespace)
        write_signs(archive / "archive", classes, seed=9)
        volumes(checkpoint_name(name), namespace)
        inside.apply(json.dumps(build_claim("street-signs-archive")))
        ctr(level.nodes["edge2"], "images", "tag", "--force", full_name(RUNTIME), image)
        gpu.give(api, "edge2")
        jobs = Jobs(api, inside)

        jobs.apply(example)
        inside.wait(f"fij/{name}", "condition=Complete", seconds=400)

        status = jobs.status(name)
        places = {group: _places(jobs, name, group) for group in ("camera", "archive", "gpu")}
        assert places == {"camera": ["edge1", "edge2"], "archive": ["cloud"], "gpu": ["edge2"]}
        assert [node_of(pod) for pod in jobs.pods(name, Role.AGGREGATOR)] == ["cloud"]
        assert status["aggregator"]["endpoint"] == f"{level.nodes['cloud'].address}:30363"
        assert status["progress"]["round"] == 12
        told = [(item["reason"], item["message"]) for item in jobs.events(name)]
        assert told[0][0] == Reason.VALID, told
        assert Reason.FINISHED in dict(told), told
        assert Reason.TRAINING in dict(told), told
        assert {item["type"] for item in jobs.events(name)} == {"Normal"}, told
        places_here = {"camera": data["edge1"], "archive": archive, "gpu": data["edge2"]}
        here = run_here(_moved(written, data["cloud"], places_here), folder, "websocket")  # on every core
        assert jobs.matrix(name) == here
    finally:
        gpu.give(api, "edge2", 0)
        inside.delete("namespace", namespace)


def _moved(job: Object, tests: Path, groups: Mapping[str, Path]) -> Object:
    """Return the job with its data in directories of this machine: the aggregator's, and each group's."""
    moved = deepcopy(job)
    moved["spec"]["dataset"]["volume"] = {"hostPath": {"path": str(tests)}}
    for group in moved["spec"]["workers"]:
        group.setdefault("dataset", {})["volume"] = {"hostPath": {"path": str(groups[group["name"]])}}
    return moved


def _places(jobs: Jobs, name: str, group: str) -> list[str]:
    """Return the nodes of a group's workers, as the job's status tells them."""
    found = jobs.status(name)["workerStatuses"]
    return sorted(item["node"] for item in found if item["group"] == group)


def _namespace(name: str, level: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {ENFORCE: level}}}
