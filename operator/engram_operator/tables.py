"""What the watches know: the jobs themselves, and small views of their batch Jobs and pods.

Raw children are never kept, so that memory is flat with thousands of pods. Every entry carries its resource
version: an answer to a write of ours goes in at once, and an older event that arrives later does not undo it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from engram.spec.names import Label
from engram.spec.nesting import DEEPEST
from engram_operator.model import JobKey, Object

View = TypeVar("View")

_DROPPED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


def version_of(item: Mapping[str, Any]) -> int:
    """Return the resource version as a number that only grows; 0 for one that is none, which is then news."""
    text = item["metadata"].get("resourceVersion") or ""
    return int(text) if text.isdigit() else 0


def key_of(job: Object) -> JobKey:
    """Return the key of a FederatedIncrementalJob."""
    return JobKey(job["metadata"]["namespace"], job["metadata"]["name"])


def owner_key(child: Object) -> JobKey | None:
    """Return the key of the job that a child's label names."""
    meta = child["metadata"]
    name = (meta.get("labels") or {}).get(Label.JOB)
    return JobKey(meta["namespace"], name) if name else None


def compact(item: Any, levels: int = DEEPEST + 1) -> Any:
    """Return a copy that shares its texts with all others and lacks what only the API server needs.

    Reasons, messages and times say the same in many conditions of many jobs: a third of their memory. What
    lies below `levels` levels is cut off: the job is refused for the one level too many that is kept.
    """
    if type(item) is str:
        return sys.intern(item)
    if isinstance(item, Mapping | list | tuple) and levels < 0:
        return None
    if isinstance(item, Mapping):
        return {
            sys.intern(str(key)): compact(value, levels - 1)
            for key, value in item.items()
            if key not in ("managedFields", _DROPPED_ANNOTATION)
        }
    if isinstance(item, list | tuple):
        return [compact(value, levels - 1) for value in item]
    return item


class JobTable:
    """The FederatedIncrementalJobs as the API server sends them, without managedFields."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Object] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: JobKey) -> bool:
        return key in self._jobs

    def __iter__(self) -> Iterator[JobKey]:
        return iter(tuple(self._jobs))

    def get(self, key: JobKey) -> Object | None:
        """Return the job; it belongs to the table and is not to be changed."""
        return self._jobs.get(key)

    def values(self) -> tuple[Object, ...]:
        """Return all jobs."""
        return tuple(self._jobs.values())

    def put(self, job: Mapping[str, Any], *, listed: bool = False) -> bool:
        """Take over a job; return whether that is news. What is `listed` counts even if it looks older."""
        key = JobKey(job["metadata"]["namespace"], job["metadata"]["name"])
        known = self._jobs.get(key)
        if known is not None:
            old, new = version_of(known), version_of(job)
            same = known["metadata"].get("uid") == job["metadata"].get("uid")
            if same and new and (new == old or (new < old and not listed)):
                return False
        self._jobs[key] = compact(job)
        return True

    def drop(self, key: JobKey) -> None:
        """Forget a job that is gone."""
        self._jobs.pop(key, None)


class _Entry(NamedTuple, Generic[View]):
    version: int
    owner_uid: str
    view: View


class ChildTable(Generic[View]):
    """Views of the children of one kind, by job and name.

    Args:
        view: makes a view of a raw object.
        changed: is told the job whose children changed.
    """

    def __init__(self, view: Callable[[Object], View], changed: Callable[[JobKey], None]) -> None:
        self._view, self._changed = view, changed
        self._children: dict[JobKey, dict[str, _Entry[View]]] = {}

    def __len__(self) -> int:
        return sum(len(children) for children in self._children.values())

    def of(self, key: JobKey, uid: str) -> dict[str, View]:
        """Return the children, by name, of the very job with `uid`."""
        found = self._children.get(key) or {}
        return {name: entry.view for name, entry in found.items() if entry.owner_uid == uid}

    def strangers(self, key: JobKey, uid: str) -> tuple[str, ...]:
        """Return names of children that carry the job's label, but not `uid`."""
        found = self._children.get(key) or {}
        return tuple(name for name, entry in found.items() if entry.owner_uid != uid)

    def put(self, child: Object) -> None:
        """Take over a child."""
        key = owner_key(child)
        if key is None:
            return
        meta = child["metadata"]
        known = self._children.get(key, {}).get(meta["name"])
        version = version_of(child)
        if known is not None and 0 < version <= known.version:
            return
        uid = (meta.get("labels") or {}).get(Label.JOB_UID, "")
        self._children.setdefault(key, {})[meta["name"]] = _Entry(version, uid, self._view(child))
        self._changed(key)

    def drop(self, child: Object) -> None:
        """Forget a child that is gone, unless a newer one has taken its name."""
        key = owner_key(child)
        known = self._children.get(key, {}).get(child["metadata"]["name"]) if key is not None else None
        if key is not None and known is not None and known.version <= (version_of(child) or known.version):
            self._remove(key, child["metadata"]["name"])

    def keep_only(self, namespace: str, seen: set[tuple[JobKey, str]], version: int) -> None:
        """Forget what a listing of `namespace` (empty: all) at `version` did not show."""
        for key, children in list(self._children.items()):
            if namespace and key.namespace != namespace:
                continue
            for name, entry in list(children.items()):
                if (key, name) not in seen and entry.version <= version:
                    self._remove(key, name)

    def _remove(self, key: JobKey, name: str) -> None:
        children = self._children[key]
        del children[name]
        if not children:
            del self._children[key]
        self._changed(key)
