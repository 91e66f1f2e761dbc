"""ConfigMap `<job>-spec`: the job as pods read it, and what it looked like when it was started.

The CRD cannot protect its untyped parts (podTemplate, volumes, parameters) from a later edit, so the
ConfigMap keeps the whole resolved spec with a digest: what differs later is ignored, and said.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from engram.spec.base import MUTABLE, Spec
from engram.spec.job import FederatedIncrementalJob, JobSpec
from engram.spec.names import Annotation, Role, SpecKey
from engram_operator.manifests.context import Context
from engram_operator.manifests.endpoints import cloud_endpoints
from engram_operator.manifests.labels import metadata
from engram_operator.manifests.names import spec_name
from engram_operator.manifests.volumes import with_checkpoint
from engram_operator.model import Object

_Spec = TypeVar("_Spec", bound=Spec)

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON takes in a text as they are, and YAML does not."""


def config_map(job: FederatedIncrementalJob, context: Context, digest: str) -> Object:
    """Return the ConfigMap with the resolved job, its `spec_digest`, the endpoints and the CA's certificate.

    The job is written as JSON, which every YAML reader takes and the operator reads a hundred times faster.
    """
    meta = metadata(job, spec_name(job.name), Role.AGGREGATOR)
    meta["annotations"] = {Annotation.SPEC_DIGEST: digest}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {
            SpecKey.JOB: as_text(_resolved(job)),
            SpecKey.DIGEST: f"{digest}\n",
            SpecKey.ENDPOINTS: _lines(context.endpoints),
            SpecKey.CLOUD_ENDPOINTS: _lines(cloud_endpoints(job, context.endpoints, context.settings)),
            SpecKey.REPLICAS: "".join(
                f"{group.name} {context.replicas_of(group)}\n" for group in job.spec.workers
            ),
            SpecKey.CA: context.credentials.ca,
        },
    }


def spec_digest(job: FederatedIncrementalJob) -> str:
    """Return the SHA-256 of everything in the spec that may not change while the job runs, opaque parts too.

    Fields that have their default value do not count, so that an operator that knows one field more finds the
    same digest for a job that was started before it.
    """
    dumped = job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    dumped["workers"] = [
        group.model_dump(mode="json", by_alias=True, exclude_defaults=True) for group in job.spec.workers
    ]  # also where they are the default: a group may grow, and its absence would be a difference
    text = json.dumps(_fixed(JobSpec, dumped), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def started_job(config: Object | None) -> FederatedIncrementalJob | None:
    """Return the job that a ConfigMap holds; None: it holds none, or somebody has written into it."""
    text = ((config or {}).get("data") or {}).get(SpecKey.JOB) or ""
    try:
        json.loads(text)
        return FederatedIncrementalJob.model_validate_json(text)
    except (ValueError, ValidationError, RecursionError):
        return None


def as_started(job: FederatedIncrementalJob, config: Object) -> tuple[FederatedIncrementalJob, bool]:
    """Return the job that `config` (its ConfigMap) holds, with what may change while it runs as `job` says;
    and whether anything else of `job` is another than it was.

    Returns `job` itself when the ConfigMap holds no job any more.
    """
    started = started_job(config)
    if started is None:
        return job, False
    given = started.spec.aggregator.checkpoint
    job = with_checkpoint(job, given.size, given.storage_class_name)
    if str((config.get("data") or {}).get(SpecKey.DIGEST, "")).strip() == spec_digest(job):
        return job, False
    return job.model_copy(update={"spec": _overlay(started.spec, job.spec)}), True


def _resolved(job: FederatedIncrementalJob) -> Object:
    """Return the job with every default; of its metadata only what pods use, as the rest changes.

    Pods that read it are not suspended, so a suspension does not write the ConfigMap.
    """
    content = job.dump()
    content["spec"]["suspend"] = False
    content["metadata"] = {key: content["metadata"][key] for key in ("name", "namespace", "uid")}
    return content


def as_text(content: Object) -> str:
    """Return JSON that a YAML reader takes for the same: it knows no surrogate pairs, and other line ends."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _lines(endpoints: tuple[str, ...]) -> str:
    return "".join(f"{endpoint}\n" for endpoint in endpoints)


def _mutable(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.items() >= MUTABLE.items()


@cache
def _parts(kind: type[Spec]) -> tuple[tuple[str, str, type[Spec] | None], ...]:
    """Return name, key and type of those fields of `kind` that may change (type None) or that are Specs."""
    found: list[tuple[str, str, type[Spec] | None]] = []
    for name, info in kind.model_fields.items():
        inner = next(iter(get_args(info.annotation)), info.annotation)
        if _mutable(info):
            found.append((name, info.alias or name, None))
        elif isinstance(inner, type) and issubclass(inner, Spec):
            found.append((name, info.alias or name, inner))
    return tuple(found)


def _fixed(kind: type[Spec], dumped: Object) -> Object:
    """Return a dump of a `kind`, made without defaults, without the fields that may change."""
    fixed = dict(dumped)
    for _, key, inner in _parts(kind):
        value = fixed.pop(key, None)
        if inner is None or value is None:
            continue
        kept = [_fixed(inner, item) for item in value] if isinstance(value, list) else _fixed(inner, value)
        if kept:
            fixed[key] = kept
    return fixed


def _overlay(started: _Spec, now: _Spec) -> _Spec:
    """Return `started` with the mutable fields of `now`; groups are paired by name, newcomers ignored."""
    update: dict[str, Any] = {}
    for name, _, inner in _parts(type(started)):
        old, new = getattr(started, name), getattr(now, name)
        if inner is None:
            update[name] = new
        elif isinstance(old, list):
            current = {item.name: item for item in new}
            update[name] = [_overlay(item, current.get(item.name, item)) for item in old]
        else:
            update[name] = _overlay(old, new)
    return started.model_copy(update=update)
