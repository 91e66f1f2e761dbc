"""The pods that a job would have: one template for the aggregator and for each group, with how many of it.

Pure: from the children that the operator's builders make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engram.spec.quantities import parse_quantity
from engram_operator.manifests import Children
from engram_operator.model import Object

AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class PodSet:
    """Pods that are alike."""

    name: str
    """`aggregator`, or the group's name."""
    field: str
    """Where the job file describes them."""
    replicas: int
    template: Object

    @property
    def spec(self) -> Mapping[str, Any]:
        """Of each pod."""
        found: Mapping[str, Any] = self.template["spec"]
        return found

    def requests(self) -> dict[str, Decimal]:
        """Return what one pod asks for, as the scheduler counts it: the sum of its containers, or the largest
        of its init containers where that is more. A limit without a request is one.
        """
        total: dict[str, Decimal] = {}
        for container in self.spec.get("containers") or ():
            for name, amount in asked(container).items():
                total[name] = total.get(name, Decimal(0)) + amount
        for container in self.spec.get("initContainers") or ():
            for name, amount in asked(container).items():
                total[name] = max(total.get(name, Decimal(0)), amount)
        return total

    def images(self) -> Iterator[str]:
        """Yield the images of its containers."""
        for kind in ("initContainers", "containers"):
            for container in self.spec.get(kind) or ():
                yield str(container.get("image") or "")


def asked(container: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return a container's requests; what has a limit only requests that."""
    resources = container.get("resources") or {}
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    found = {}
    for name, amount in amounts.items():
        try:
            found[str(name)] = parse_quantity(amount)
        except ValueError:
            continue  # of other people's pods; ours were validated
    return found


def pod_sets(children: Children) -> tuple[PodSet, ...]:
    """Return the aggregator's pod, then those of each group."""
    sets = [PodSet(AGGREGATOR, "spec.aggregator", 1, children.aggregation["spec"]["template"])]
    for position, (name, job) in enumerate(children.workers.items()):
        replicas = int(job["spec"]["completions"])
        sets.append(PodSet(name, f"spec.workers[{position}]", replicas, job["spec"]["template"]))
    return tuple(sets)


def pod_of(wanted: PodSet, namespace: str, name: str) -> Object:
    """Return one pod of a set, to be judged by the API server's admission."""
    meta = wanted.template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**meta, "name": name, "namespace": namespace},
        "spec": dict(wanted.spec),
    }
