"""CEL rules of the CRD: what the API server refuses by itself, with messages that say what to write instead.

They repeat rules of `validation` as far as CEL can see; untyped parts (parameters, pod templates, volumes)
are invisible to it. Everything that a rule touches is bounded in the schema, or the API server refuses the
CRD for the rule's estimated cost. Needs Kubernetes 1.29 or later (quantity library).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engram.spec.asynchronous import COMPARING
from engram.spec.names import JOB_NAME_LENGTH, JOB_NAME_PATTERN, MOST_WORKERS, RESERVED_GROUP_NAMES
from engram.spec.parameters import CLASS_COUNTS, NONE
from engram.spec.schema import MUTABLE_MARK, PRESERVE, Schema
from engram.spec.sedna import ALGORITHMS as SEDNA_ALGORITHMS

LIST_KEYS = "x-kubernetes-list-map-keys"


@dataclass(frozen=True)
class Rule:
    """One x-kubernetes-validations entry at `path` (`[]` stands for the items of a list)."""

    path: tuple[str, ...]
    rule: str
    message: str

    def dump(self) -> dict[str, str]:
        """Return the entry as it stands in the CRD."""
        return {"rule": self.rule, "message": self.message}


def rules(spec: Schema) -> Iterator[Rule]:
    """Yield every rule; `spec` is the schema of JobSpec, from which the immutable fields are read."""
    yield Rule(
        (),
        f"size(self.metadata.name) <= {JOB_NAME_LENGTH}",
        f"metadata.name is too long: write at most {JOB_NAME_LENGTH} characters",
    )
    yield Rule(
        (),
        f"self.metadata.name.matches('{JOB_NAME_PATTERN}')",
        "metadata.name: write lower-case letters, digits and hyphens, a letter first and no hyphen last",
    )
    yield Rule((), _immutable(spec), _immutable_message(spec))
    yield from _class_rules()
    yield Rule(
        ("spec", "dataset", "partition"),
        "self.method != 'local' || self.minSamples == 0",
        "minSamples has no effect with method local: remove it, or write method: dirichlet, iid or shards",
    )
    yield from _worker_rules()
    yield from _aggregator_rules()
    yield from _sedna_rules()
    yield from _buffer_rules()
    yield Rule(
        ("spec", "report", "prometheus", "url"),
        "self == '' || self.matches('^https?://[^/]')",
        "write http://HOST:PORT or https://HOST",
    )


def _class_rules() -> Iterator[Rule]:
    """Tasks against classes."""
    yield Rule(
        ("spec", "tasks"),
        "self.classOrder != 'listed' || size(self.classes) == self.count * self.classesPerTask",
        "classOrder listed needs classes: write count x classesPerTask label ids in learning order",
    )
    yield Rule(
        ("spec", "tasks"),
        "self.classOrder == 'listed' || size(self.classes) == 0",
        "classes are for classOrder listed only: write classOrder: listed, or remove classes",
    )
    for count in sorted(set(CLASS_COUNTS.values())):
        named = _texts([name for name, classes in CLASS_COUNTS.items() if classes == count])
        yield Rule(
            ("spec",),
            f"!(self.dataset.name in {named}) || self.tasks.count * self.tasks.classesPerTask <= {count}",
            f"the tasks need more classes than the {count} of the data set: lower tasks.count or "
            "tasks.classesPerTask",
        )


def _worker_rules() -> Iterator[Rule]:
    """Worker groups and the quorum over them."""
    yield Rule(
        ("spec", "workers", "[]", "name"),
        f"!(self in {_texts(list(RESERVED_GROUP_NAMES))})",
        f"this name is reserved: write another than {', '.join(RESERVED_GROUP_NAMES)}",
    )
    yield Rule(
        ("spec", "workers"),
        f"self.map(w, w.replicas).sum() <= {MOST_WORKERS}",
        f"too many workers: write at most {MOST_WORKERS} replicas over all groups",
    )
    yield Rule(
        ("spec", "workers"),
        "size(self) == 0 || self.exists(w, !has(w.dataset.labelRatio) || w.dataset.labelRatio != 0.0)",
        "every group has dataset.labelRatio 0, so nobody holds a label: give one a labelRatio above 0",
    )
    yield Rule(
        ("spec",),
        "type(self.aggregation.quorum) == string || "
        "int(self.aggregation.quorum) <= self.workers.map(w, w.replicas).sum()",
        "aggregation.quorum can never be reached: write at most the number of workers, or a percentage",
    )
    yield Rule(
        ("spec", "aggregation"),
        "self.?stragglerFactor.orValue(-1.0) < 0.0 || type(self.quorum) != string || self.quorum != '100%'",
        "stragglerFactor has no effect with quorum 100%: write a lower quorum such as 75%, or remove it",
    )


def _aggregator_rules() -> Iterator[Rule]:
    """Exposure and checkpoint."""
    yield Rule(
        ("spec", "aggregator"),
        "self.expose.type != 'HostPort' || self.nodeName != ''",
        "expose.type HostPort needs nodeName: write the node whose port it is",
    )
    yield Rule(
        ("spec", "aggregator", "expose"),
        "self.type != 'ClusterIP' || self.port == 0",
        "port has no effect with type ClusterIP: write type NodePort or HostPort, or remove port",
    )
    yield Rule(
        ("spec", "aggregator", "checkpoint"),
        "self.size == '' || (isQuantity(self.size) && quantity(self.size).isGreaterThan(quantity('0')))",
        "size is no quantity: write one such as 1Gi",
    )
    yield Rule(
        ("spec", "aggregator", "checkpoint"),
        "self.storageClassName == '' || self.size != ''",
        "storageClassName needs size: write one such as 1Gi",
    )


def _sedna_rules() -> Iterator[Rule]:
    """What Sedna's protocol can carry."""
    yield Rule(
        ("spec",),
        "self.protocol != 'sedna' || self.tasks.count == 1",
        "Sedna's workers know rounds only: write tasks.count: 1, and all classes as classesPerTask",
    )
    yield Rule(
        ("spec",),
        f"self.protocol != 'sedna' || self.algorithm.name in {_texts(list(SEDNA_ALGORITHMS))}",
        f"protocol sedna carries nothing but weights: write algorithm.name: {' or '.join(SEDNA_ALGORITHMS)}",
    )
    yield Rule(
        ("spec",),
        "self.protocol != 'sedna' || (self.aggregation.clientFraction == 1.0 && "
        "self.aggregation.compression == 'none' && self.evaluation.location == 'aggregator')",
        "with protocol sedna every worker trains in every round, weights are JSON text and nobody can ask "
        "workers to evaluate: write clientFraction: 1, compression: none, location: aggregator",
    )
    yield Rule(
        ("spec",),
        f"self.protocol == 'sedna' || (self.dataset.name != '{NONE}' && self.model.name != '{NONE}')",
        f"{NONE} is for protocol sedna only: write what the workers train",
    )
    yield Rule(
        ("spec",),
        f"(self.dataset.name == '{NONE}') == (self.model.name == '{NONE}')",
        f"without data nobody knows the model's input: write {NONE} for dataset.name and model.name or for "
        "neither",
    )


def _buffer_rules() -> Iterator[Rule]:
    """What asynchronous rounds go together with."""
    yield Rule(
        ("spec", "aggregation"),
        f"self.buffer.size == 0 || !(self.name in {_texts(list(COMPARING))})",
        f"{', '.join(COMPARING)} compare updates of one model, in a buffer they are of several: write "
        "another aggregation.name, or buffer.size: 0",
    )
    yield Rule(
        ("spec", "aggregation"),
        "self.buffer.size == 0 || (self.clientFraction == 1.0 && self.compression == 'none' && "
        "self.?stragglerFactor.orValue(-1.0) < 0.0)",
        "with buffer.size nobody is sampled or late and updates travel as they are: write clientFraction: 1, "
        "compression: none and no stragglerFactor, or buffer.size: 0",
    )
    yield Rule(
        ("spec",),
        "self.aggregation.buffer.size == 0 || (self.protocol == 'engram' && "
        "!(self.evaluation.location == 'workers' && self.evaluation.every == 'round'))",
        "with aggregation.buffer.size workers train on while a round closes, which protocol sedna cannot do "
        "and evaluation on workers would interrupt: write protocol: engram, and evaluation.every: task or "
        "location: aggregator",
    )
    yield Rule(
        ("spec",),
        "self.aggregation.buffer.size <= self.workers.map(w, w.replicas).sum()",
        "aggregation.buffer.size can never be reached: write at most the number of workers",
    )


def _texts(names: list[str]) -> str:
    """Return a CEL list of strings."""
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _immutable(spec: Schema) -> str:
    """Return the rule that keeps every typed, immutable field once the run has started."""
    clauses = " && ".join(_unchanged(spec, "self.spec", "oldSelf.spec"))
    return f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || ({clauses})"


def _immutable_message(spec: Schema) -> str:
    """Return its message, which names the fields that may change."""
    mutable = ", ".join(mutable_fields(spec))
    return f"the job has started: only {mutable} may change. Delete the job and apply it anew for the rest"


def mutable_fields(schema: Schema, prefix: str = "spec") -> list[str]:
    """Return the paths of all fields that may change while the job runs."""
    found: list[str] = []
    for key, below in schema.get("properties", {}).items():
        place = f"{prefix}.{key}"
        if below.get(MUTABLE_MARK):
            found.append(place)
        else:
            found.extend(mutable_fields(below, place))
            found.extend(mutable_fields(below.get("items", {}), f"{place}[]"))
    return found


def _unchanged(schema: Schema, new: str, old: str) -> Iterator[str]:
    """Yield CEL clauses that are true when no typed, immutable field below `schema` has changed."""
    for key, below in schema["properties"].items():
        if below.get(MUTABLE_MARK) or below.get(PRESERVE):
            continue
        one, other = f"{new}.{key}", f"{old}.{key}"
        if _is_closed(below):
            yield f"{one} == {other}" if "default" in below else _same_or_absent(new, old, key, below["type"])
        elif "properties" in below:
            yield from _unchanged(below, one, other)
        elif LIST_KEYS in below:
            names = [f"w.{name} == o.{name}" for name in below[LIST_KEYS]]
            kept = [clause for clause in _unchanged(below["items"], "w", "o") if clause not in names]
            yield f"size({one}) == size({other})"
            yield f"{one}.all(w, {other}.exists(o, {' && '.join([*names, *kept])}))"


def _same_or_absent(new: str, old: str, key: str, kind: str) -> str:
    """Return the clause for a field without a default: absent and null are the same.

    Texts cannot have it so: the API server's estimate of a rule's cost knows no longest text behind
    `orValue`.
    """
    if kind in ("integer", "number"):
        nothing = "-1" if kind == "integer" else "-1.0"  # no field without a default may be negative
        return f"{new}.?{key}.orValue({nothing}) == {old}.?{key}.orValue({nothing})"
    one, other = f"{new}.{key}", f"{old}.{key}"
    return f"has({one}) == has({other}) && (!has({one}) || {one} == {other})"


def _is_closed(schema: Schema) -> bool:
    """Tell whether a value can be compared whole: nothing inside is untyped, may change or may be absent."""
    if schema.get(PRESERVE) or schema.get(MUTABLE_MARK):
        return False
    properties = schema.get("properties", {}).values()
    inner = [*properties, *([schema["items"]] if "items" in schema else [])]
    return all(_is_closed(below) for below in inner) and all("default" in below for below in properties)
