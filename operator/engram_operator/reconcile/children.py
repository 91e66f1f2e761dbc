"""Which of a job's objects are missing or differ. Pure: (wanted, observed) -> apply, create, patch,
delete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram_operator.manifests.build import Children
from engram_operator.manifests.older import in_words_of
from engram_operator.model import Object, Observed, Plan


def first_objects(children: Children, observed: Observed) -> Plan:
    """Return the writes that bring a job's objects into being, those that exist already left out."""
    once = [item for item in (children.credentials, *children.jobs) if not _made(item, observed)]
    return Plan(apply=changed(children, observed), create=tuple(once))


def changed(children: Children, observed: Observed, *, config: bool = True) -> tuple[Object, ...]:
    """Return what to apply: objects that are missing, or differ from what is wanted.

    A claim is never changed once it is there: it cannot be. The Secret of the tokens is, when it lacks a
    worker; it is applied from the beginning, since what is created first and applied later has its fields
    listed twice in managedFields, too much for etcd with 10,000 workers. `config`: whether the ConfigMap may
    be written.
    """
    policy = [] if children.policy is None else [children.policy]
    job = in_words_of(children.config_map, observed.objects.get(_key(children.config_map)))
    wanted = [*([job] if config else []), *children.services, *policy]
    found = [item for item in wanted if differs(item, observed.objects.get(_key(item)))]
    if children.claim is not None and _key(children.claim) not in observed.objects:
        found.append(children.claim)
    tokens = children.worker_tokens
    if not set(tokens["data"]) <= set(observed.secrets.get(tokens["metadata"]["name"], ())):
        found.append(tokens)
    return tuple(found)


def differs(wanted: Object, found: Object | None) -> bool:
    """Return whether `found` lacks something of `wanted`; what others or the API server added does not
    count.
    """
    return found is None or not _holds(wanted, found)


def _holds(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _holds(value, found.get(key)) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(_holds(one, other) for one, other in zip(wanted, found, strict=True))
        )
    return bool(wanted == found)


def _made(item: Object, observed: Observed) -> bool:
    name = item["metadata"]["name"]
    return name in (observed.secrets if item["kind"] == "Secret" else observed.jobs)


def _key(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
