"""Whose answers the aggregator turned down of late, and what a person can do about it.

Late and duplicate answers are no news: they follow every reconnection. What a pod says is not trusted to be
well-formed; an entry that does not read is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engram.spec.names import Reason, Rejection
from engram_operator.status.conditions import shorten
from engram_operator.status.finding import ANEW, Finding
from engram_operator.status.said import readable, whole

RECENT_ROUNDS = 2
"""A refusal is told for so many rounds, whatever came after it: one bad update in two would flicker."""
_MOST_WORDS = 160

_MENDS: Mapping[str, str] = {
    Rejection.SHAPE: f"the worker runs another model or algorithm: {ANEW} with images of the same code",
    Rejection.NON_FINITE: f"{ANEW} with a lower training.optimizer.learningRate, or training.gradientClip",
    Rejection.NORM: f"look at its data, or {ANEW} with training.gradientClip or a lower learningRate",
    Rejection.TOO_LARGE: f"{ANEW} with an algorithm that reports less beside the weights",
    Rejection.PROTOCOL: "it speaks another protocol, or a proxy on its way changes what it sends: "
    f"{ANEW} with one image for aggregator and workers",
}
"""What to do, by the reason of the refusal; others are no affair of a person's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The newest answer of a worker that was turned down for a reason that a person must know."""

    reason: str
    message: str
    round: int
    """Counted over the whole run."""


def recently_refused(statuses: object, current: int) -> dict[str, Refused]:
    """Return by worker what was turned down of late.

    Of late: no answer of the worker has counted since, or it is not `RECENT_ROUNDS` rounds ago.

    Args:
        statuses: `workerStatuses` of the aggregator's live status.
        current: round that is running, over the whole run.
    """
    items: Iterable[object] = statuses if isinstance(statuses, list) else ()
    found: dict[str, Refused] = {}
    for item in items:
        if not isinstance(item, Mapping) or not isinstance(name := item.get("name"), str):
            continue
        refused = _newest(item.get("rejected"))
        accepted = whole(item.get("acceptedRound"))
        if refused and (accepted <= refused.round or current - refused.round < RECENT_ROUNDS):
            found[name] = refused
    return found


def explain_refused(worker: str, refused: Refused) -> Finding:
    """Return what is wrong with a worker whose answer was turned down."""
    words = shorten(refused.message, _MOST_WORDS).rstrip(".")
    why = f"{refused.reason}: {words}" if words else refused.reason
    return Finding(
        Reason.UPDATES_REJECTED,
        f"its update of round {refused.round} was rejected ({why}) and does not count: "
        f"{_MENDS[refused.reason]}",
        worker,
    )


def _newest(said: object) -> Refused | None:
    """Return the first entry, the newest comes first, that a person must know of."""
    for entry in said if isinstance(said, list) else ():
        reason = readable(entry.get("reason")) if isinstance(entry, Mapping) else ""
        if reason in _MENDS:
            return Refused(reason, readable(entry.get("message")), whole(entry.get("round")))
    return None
