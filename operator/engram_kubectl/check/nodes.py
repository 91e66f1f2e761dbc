"""Whether any node takes a job's pods: the scheduler's rules that our templates use, as pure functions.

It is no scheduler: what it does not know (spreading, ports, volumes' nodes, preemption) it does not judge, so
a `fits` may still be refused, but what it refuses, the scheduler does, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engram.spec.names import Label
from engram_kubectl.check.findings import Found, fail, ok, unreadable, warn
from engram_kubectl.check.pods import PodSet, asked
from engram_operator.model import Object, conditions_of

MOST_NAMED = 5
_SCHEDULING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Node:
    """What the scheduler looks at of a node."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]
    cordoned: bool
    ready: bool
    allocatable: Mapping[str, Decimal]
    free: Mapping[str, Decimal] | None
    """Allocatable without what its pods have asked for; None: its pods may not be read."""
    images: frozenset[str] = frozenset()

    @property
    def edge(self) -> bool:
        """Whether it is an edge node of KubeEdge's."""
        return str(Label.EDGE_NODE) in self.labels

    @classmethod
    def of(cls, node: Object, pods: Sequence[Object] | None) -> Node:
        """Read a node, and what `pods` take of it."""
        meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
        allocatable = asked({"resources": {"requests": status.get("allocatable") or {}}})
        mine = [pod for pod in pods or () if (pod.get("spec") or {}).get("nodeName") == meta["name"]]
        ready = conditions_of(status).get("Ready")
        return cls(
            name=meta["name"],
            labels=meta.get("labels") or {},
            taints=spec.get("taints") or (),
            cordoned=bool(spec.get("unschedulable")),
            ready=ready is not None and ready.true,
            allocatable=allocatable,
            free=None if pods is None else _free(allocatable, mine),
            images=frozenset(
                name for image in status.get("images") or () for name in image.get("names") or ()
            ),
        )


def _free(allocatable: Mapping[str, Decimal], pods: Iterable[Object]) -> dict[str, Decimal]:
    free = dict(allocatable)
    for pod in pods:
        used = PodSet("", "", 1, {"spec": pod.get("spec") or {}}).requests()
        for name, amount in {**used, "pods": Decimal(1)}.items():
            if name in free:
                free[name] -= amount
    return free


def check_nodes(sets: Sequence[PodSet], nodes: Sequence[Node] | None) -> list[Found]:
    """Return for each set of pods whether there are nodes for it."""
    if nodes is None:
        return [unreadable("nodes", "nodes")]
    if not nodes:
        return [fail("nodes", "the cluster has no nodes", "add one")]
    return [_judge(wanted, nodes) for wanted in sets]


def _judge(wanted: PodSet, nodes: Sequence[Node]) -> Found:
    subject = f"nodes: {wanted.name}"
    reasons = {node.name: obstacle(wanted, node) for node in nodes}
    fitting = [node for node in nodes if not reasons[node.name]]
    if not fitting:
        counted = Counter(filter(None, reasons.values())).most_common(MOST_NAMED)
        why = "; ".join(f"{number} {reason}" for reason, number in counted)
        return fail(subject, f"none of {len(nodes)} takes a pod: {why}", _remedy(wanted, counted[0][0]))
    names = _names([node.name for node in fitting])
    offline = [node.name for node in fitting if not node.ready]
    if len(offline) == len(fitting):
        return warn(subject, f"{names} would take its pods, but is not Ready", "bring a node back")
    room = [_room(wanted, node) for node in fitting if node.ready]
    known = [number for number in room if number is not None]
    if len(known) == len(room) and sum(known) < wanted.replicas:
        return warn(
            subject,
            f"{names} would take its pods, but there is room for {sum(known)} of {wanted.replicas} now",
            f"add nodes or free some, or lower replicas or resources in {wanted.field}",
        )
    return ok(subject, f"{names} of {len(nodes)} for {wanted.replicas}")


def obstacle(wanted: PodSet, node: Node) -> str:
    """Return why the scheduler keeps a pod away from a node however empty that is; empty: it does not."""
    spec = wanted.spec
    for key, value in (spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return f"without label {key}{f'={value}' if value else ''}"
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity and not any(_meets(term, node) for term in affinity.get("nodeSelectorTerms") or ()):
        return "kept out by the affinity of placement, nodeName or podTemplate"
    if node.cordoned:
        return "cordoned"
    tolerations = spec.get("tolerations") or ()
    for taint in node.taints:
        if taint.get("effect") in _SCHEDULING and not any(tolerates(item, taint) for item in tolerations):
            return f"tainted {taint['key']}:{taint['effect']}"
    for name, amount in wanted.requests().items():
        if amount > node.allocatable.get(name, Decimal(0)):
            return f"with less than {name} {_plain(amount)} in all"
    return ""


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Return whether a toleration is of a taint."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key and key != taint.get("key"):
        return False
    return operator == "Exists" or (
        bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")
    )


def _meets(term: Mapping[str, Any], node: Node) -> bool:
    """Return whether a node meets one term of an affinity; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_matches(item, node.labels) for item in expressions) and all(
        _matches(item, {"metadata.name": node.name}) for item in fields
    )


def _matches(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    found = values.get(str(requirement.get("key")))
    wanted, operator = [str(value) for value in requirement.get("values") or ()], requirement.get("operator")
    if operator == "Exists":
        return found is not None
    if operator == "DoesNotExist":
        return found is None
    if operator == "In":
        return found is not None and found in wanted
    if operator == "NotIn":
        return found is None or found not in wanted
    try:
        number, bound = int(found or ""), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else operator == "Lt" and number < bound


def _room(wanted: PodSet, node: Node) -> int | None:
    """Return how many pods of a set a node has room for now; None: not known."""
    if node.free is None:
        return None
    requests = {**wanted.requests(), "pods": Decimal(1)}
    numbers = [
        max(0, int(node.free[name] // amount))
        for name, amount in requests.items()
        if amount > 0 and name in node.free
    ]
    return min(numbers, default=wanted.replicas)


def _remedy(wanted: PodSet, reason: str) -> str:
    if str(Label.EDGE_NODE) in reason:
        return f'label the edge nodes {Label.EDGE_NODE}="", or write placement: any in {wanted.field}'
    if reason.startswith("tainted"):
        return f"take the taint away, or tolerate it in {wanted.field}.podTemplate"
    if reason.startswith("with less"):
        return f"add a node that has it, or lower resources or gpus in {wanted.field}"
    if reason == "cordoned":
        return "kubectl uncordon a node"
    return f"change placement or nodeName in {wanted.field}, or the labels of nodes"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(sorted(names)[:MOST_NAMED]) + more


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
