"""The ConfigMap of a job that was started by an operator of an older version.

Its pods run the image of that version, and one that comes later (a worker that is replaced, a resume) reads
`<job>-spec` anew: a field that its version does not know would end it with a configuration error. So a field
that is not there yet comes in only where it says something.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engram.spec.names import SpecKey
from engram_operator.manifests.config import as_text, started_job
from engram_operator.model import Object


def in_words_of(built: Object, found: Object | None) -> Object:
    """Return the ConfigMap `built` without those fields of the job that `found`, the one that is there, lacks
    and that have their default value.
    """
    before = str(((found or {}).get("data") or {}).get(SpecKey.JOB) or "")
    now = built["data"][SpecKey.JOB]
    job = started_job(built)
    if before == now or job is None or started_job(found) is None:
        return built
    told: Object = job.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kept = _kept(json.loads(now), json.loads(before), told)
    return {**built, "data": {**built["data"], SpecKey.JOB: as_text(kept)}}


def _kept(now: Any, before: Any, told: Any) -> Any:
    """Return `now` without what neither `before` nor `told` (what is not default) has."""
    if isinstance(now, dict) and (isinstance(before, dict) or isinstance(told, dict)):
        earlier, needed = _mapping(before), _mapping(told)
        return {
            key: _kept(value, earlier.get(key), needed.get(key))
            for key, value in now.items()
            if key in earlier or key in needed
        }
    if isinstance(now, list):
        one, other = _items(before, len(now)), _items(told, len(now))
        return [_kept(*parts) for parts in zip(now, one, other, strict=True)]
    return now


def _mapping(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, dict) else {}


def _items(part: Any, length: int) -> list[Any]:
    """Return the items of a list of that length; of anything else nothing is known."""
    return part if isinstance(part, list) and len(part) == length else [None] * length
