"""How much memory a process was known to use before it was killed for memory.

Kubernetes says the limit and nothing of the use. Workers tell the aggregator with every heartbeat, and the
aggregator tells the highest of it, and its own, in its live status. An aggregator that is killed takes that
with it, so the status keeps what was known last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engram.spec.names import Role, worker_name
from engram_operator.model import Live, Observed, PodView
from engram_operator.status.finding import AGGREGATOR
from engram_operator.status.said import whole

_MEBIBYTE = 2**20
_IN_GIBIBYTES = 10 * 2**30
"""From here on a figure is told in Gi."""


def known_peaks(status: Mapping[str, Any], live: Live | None) -> dict[str, int]:
    """Return the most bytes that the aggregator and each worker are known to have used.

    Args:
        status: the job's status as it was written last.
        live: what the aggregator says now, which is not trusted to be well-formed.
    """
    found: dict[str, int] = {}

    def note(name: object, said: object) -> None:
        used = whole(said.get("memoryBytes")) if isinstance(said, Mapping) else 0
        if isinstance(name, str) and used:
            found[name] = max(found.get(name, 0), used)

    for source in (status, live.status if live is not None else {}):
        note(AGGREGATOR, source.get("aggregator"))
        workers = source.get("workerStatuses")
        for item in workers if isinstance(workers, list) else ():
            note(item.get("name") if isinstance(item, Mapping) else None, item)
    return found


def with_peaks(observed: Observed, status: Mapping[str, Any]) -> Observed:
    """Return the observation with what is known of the memory of every pod."""
    peaks = known_peaks(status, observed.live)
    if not peaks:
        return observed
    pods = (replace(pod, memory_peak=peaks.get(_subject(pod), 0)) for pod in observed.pods)
    return replace(observed, pods=tuple(pods))


def use_of_memory(pod: PodView) -> str:
    """Return ` (limit 256Mi, peak reported 241Mi)`, or what of it is known; empty: nothing."""
    known = [f"limit {pod.memory_limit}"] if pod.memory_limit else []
    known += [f"peak reported {quantity(pod.memory_peak)}"] if pod.memory_peak else []
    return f" ({', '.join(known)})" if known else ""


def quantity(size: int) -> str:
    """Return bytes as Kubernetes writes them: `241Mi`, `12.5Gi`."""
    if size >= _IN_GIBIBYTES:
        return f"{size / 2**30:.1f}Gi"
    return f"{max(1, round(size / _MEBIBYTE))}Mi"


def _subject(pod: PodView) -> str:
    if pod.role == Role.WORKER and pod.index is not None:
        return worker_name(pod.group, pod.index)
    return AGGREGATOR if pod.role == Role.AGGREGATOR else ""
