"""The CRD against the rules of apiextensions for structural schemas, and against our own parser.

The API server itself judges it in the tests of the control plane; these find most of what it would refuse.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from engram.spec import FederatedIncrementalJob, load_yaml
from engram.spec.cel import mutable_fields, rules
from engram.spec.crd import build_crd, build_schema, render_crd
from engram.spec.job import JobSpec
from engram.spec.schema import schema_of

Parse: TypeAlias = Callable[[str], FederatedIncrementalJob]
Schema: TypeAlias = dict[str, Any]

ALLOWED = {
    "type",
    "format",
    "description",
    "default",
    "nullable",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "items",
    "properties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every schema below `schema` with its path."""
    yield path, schema
    for key, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{key}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


ROOT = build_schema()
ALL = dict(nodes(ROOT))


def is_a(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and not (kind in ("integer", "number") and isinstance(value, bool))


def violations(value: Any, schema: Schema, path: str) -> list[str]:
    """Return how `value` breaks `schema`, unknown fields included: they would be pruned."""
    if value is None and schema.get("nullable"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int) and value >= schema["minimum"]
        text = isinstance(value, str) and re.search(schema["pattern"], value) is not None
        return [] if fits or text else [f"{path}: {value!r}"]
    kind = schema["type"]
    if not is_a(value, kind):
        return [f"{path}: {value!r} is no {kind}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is not in the enum")
    if kind == "string":
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            found.append(f"{path}: length")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{path}: pattern")
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", -(10**30)), schema.get("maximum", 10**30)
        if value < low or value > high or (schema.get("exclusiveMinimum") and value == low):
            found.append(f"{path}: bounds")
    if kind == "array":
        for index, item in enumerate(value):
            found += violations(item, schema["items"], f"{path}[{index}]")
    if kind == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found += [f"{path}.{key}: unknown" for key in value if key not in schema["properties"]]
        found += [f"{path}.{key}: missing" for key in schema.get("required", ()) if key not in value]
        for key, inner in value.items():
            if key in schema["properties"]:
                found += violations(inner, schema["properties"][key], f"{path}.{key}")
    return found


def defaulted(value: Any, schema: Schema) -> Any:
    """Return `value` as the API server stores it: nulls without meaning dropped, then defaults set."""
    if isinstance(value, list):
        return [defaulted(item, schema["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    kept = {}
    for key, inner in value.items():
        below = schema["properties"].get(key, {})
        if inner is not None or below.get("nullable") or not below:
            kept[key] = inner
    for key, below in schema["properties"].items():
        if key not in kept and "default" in below:
            kept[key] = copy.deepcopy(below["default"])
        if key in kept:
            kept[key] = defaulted(kept[key], below)
    return kept


def test_every_keyword_is_one_that_a_structural_schema_may_have() -> None:
    unknown = {path: set(schema) - ALLOWED for path, schema in ALL.items() if set(schema) - ALLOWED}
    assert unknown == {}


def test_every_value_has_a_type() -> None:
    for path, schema in ALL.items():
        if schema.get("x-kubernetes-int-or-string"):
            assert "type" not in schema, path
        else:
            assert schema.get("type") in TYPES, path


def test_untyped_parts_are_objects_with_nothing_typed_in_them() -> None:
    opaque = {
        path: schema for path, schema in ALL.items() if schema.get("x-kubernetes-preserve-unknown-fields")
    }
    assert {".spec.dataset.volume", ".spec.workers[].podTemplate", ".spec.algorithm.parameters"} <= set(
        opaque
    )
    for path, schema in opaque.items():
        assert schema["type"] == "object", path
        assert "properties" not in schema, path


def test_defaults_are_valid_by_themselves() -> None:
    found = [
        problem
        for path, schema in ALL.items()
        if "default" in schema
        for problem in violations(schema["default"], schema, path)
    ]
    assert found == []


def test_defaults_of_objects_are_complete_because_rules_judge_them_first() -> None:
    for path, schema in ALL.items():
        if "default" in schema and "properties" in schema:
            assert defaulted(schema["default"], schema) == schema["default"], path


def test_nothing_defaults_to_null() -> None:
    for path, schema in ALL.items():
        assert schema.get("default", 0) is not None, path


def test_list_maps_have_keys_that_are_always_there() -> None:
    found = {path: s for path, s in ALL.items() if s.get("x-kubernetes-list-type") == "map"}
    assert set(found) == {".spec.workers", ".status.conditions", ".status.workerStatuses", ".status.tasks"}
    for path, schema in found.items():
        for key in schema["x-kubernetes-list-map-keys"]:
            item = schema["items"]
            assert "default" in item["properties"][key] or key in item["required"], path
    assert ALL[".spec.tasks.classes"]["x-kubernetes-list-type"] == "set"


def test_lists_and_texts_are_bounded() -> None:
    for path, schema in ALL.items():
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "string" and path not in (".apiVersion", ".kind"):
            assert "maxLength" in schema or "enum" in schema, path


def test_numbers_of_spec_are_bounded() -> None:
    for path, schema in ALL.items():
        if path.startswith(".spec") and schema.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= set(schema), path


def test_everything_is_described() -> None:
    for path, schema in ALL.items():
        if path.startswith((".spec", ".status")) and not path.endswith("]"):
            assert schema.get("description"), path


def test_names_and_values_are_no_booleans_of_yaml() -> None:
    words = {"y", "n", "yes", "no", "on", "off"}
    for path, schema in ALL.items():
        assert path.rpartition(".")[2].lower() not in words
        assert not words & {str(choice).lower() for choice in schema.get("enum", ())}, path


def test_the_compact_json_fits_an_annotation_with_room() -> None:
    assert len(json.dumps(build_crd(), separators=(",", ":"))) < 100_000


def test_the_yaml_is_what_was_built_also_for_kubectl() -> None:
    assert load_yaml(render_crd()) == build_crd()
    assert render_crd().startswith("# The CustomResourceDefinition of engram.dev/v1alpha1")
    assert "`make generate`" in render_crd().splitlines()[1]


def test_names_columns_and_subresource() -> None:
    spec = build_crd()["spec"]
    assert spec["names"]["shortNames"] == ["fij"]
    assert spec["names"]["categories"] == ["ai"]
    assert spec["scope"] == "Namespaced"
    version = spec["versions"][0]
    assert version["subresources"] == {"status": {}}
    columns = [(column["name"], column.get("priority", 0)) for column in version["additionalPrinterColumns"]]
    assert columns == [
        ("Phase", 0),
        ("Task", 0),
        ("Round", 0),
        ("Accuracy", 0),
        ("Forgetting", 0),
        ("Workers", 0),
        ("Age", 0),
        ("Algorithm", 1),
        ("Dataset", 1),
        ("Aggregation", 1),
        ("Reason", 1),
    ]
    for column in version["additionalPrinterColumns"]:
        assert column["jsonPath"] in ALL or column["jsonPath"] == ".metadata.creationTimestamp"


SPECS = [
    "",
    "{}",
    "{tasks: , training: {localSteps: 16, gradientClip: null}}",
    "{seed: 012, dataset: {name: cifar100, samplesPerClass: 300, volume: {hostPath: {path: /x}}}}",
    "{workers: [{name: a}, {name: b, replicas: 5, dataset: {labelRatio: 0}, gpus: {count: 1}}]}",
    "{aggregation: {name: krum, quorum: 80%, parameters: {byzantine: 1}}, workers: [{replicas: 9}]}",
    "{aggregation: {quorum: 75%, stragglerFactor: 2.5}}",
    "{aggregation: {buffer: {size: 1}}}",
    "{aggregator: {expose: {type: HostPort}, nodeName: node-1, checkpoint: {size: 1Gi}}, runPolicy: "
    "{backoffLimit: 0}}",
    "{report: {prometheus: {url: 'http://p:9090'}, compareWith: {names: [a]}}, imagePullSecrets: "
    "[{name: x}]}",
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda value: value[:50] or "empty")
def test_the_api_server_and_our_parser_fill_in_the_same(parse: Parse, spec: str) -> None:
    written = load_yaml(f"spec: {spec}")["spec"]
    stored = defaulted({} if written is None else written, ROOT["properties"]["spec"])
    assert violations(stored, ROOT["properties"]["spec"], "spec") == []
    assert without_nulls(parse(spec).spec.dump()) == without_nulls(stored)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


RULES = list(rules(schema_of(JobSpec)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message[:40])
def test_rules_are_balanced_and_say_what_to_write(rule: Any) -> None:
    assert rule.rule.count("(") == rule.rule.count(")")
    assert rule.rule.count("'") % 2 == 0
    assert "\n" not in rule.rule + rule.message
    assert len(rule.message) < 2048
    assert re.search(r"write|lower|give|Delete the job", rule.message)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message[:40])
def test_rules_touch_fields_that_exist_and_are_bounded(rule: Any) -> None:
    place = "".join("[]" if step == "[]" else f".{step}" for step in rule.path)
    for path in re.findall(
        r"(?:self|oldSelf)((?:\.[a-zA-Z]+)+)(?!\()\b", re.sub(r"\.[a-z]+\(", " (", rule.rule)
    ):
        if path.startswith(".metadata"):
            continue
        assert place + path in ALL, f"{rule.rule}: {place + path}"
    for variable in ("w", "o"):
        for path in re.findall(rf"\b{variable}((?:\.[a-zA-Z]+)+)", re.sub(r"\.[a-z]+\(", " (", rule.rule)):
            assert f".spec.workers[]{path}" in ALL, path


def test_the_immutable_rule_names_every_typed_field_that_may_not_change() -> None:
    rule = next(rule.rule for rule in RULES if "startTime" in rule.rule)
    mutable = mutable_fields(schema_of(JobSpec))
    assert mutable == [
        "spec.suspend",
        "spec.workers[].replicas",
        "spec.runPolicy.ttlSecondsAfterFinished",
        "spec.runPolicy.cleanPodPolicy",
        "spec.report",
    ]
    rule = re.sub(r"\.\?(\w+)\.orValue\([^)]*\)", r".\1", rule)
    compared = set(re.findall(r"self(\.spec[.a-zA-Z]+) == oldSelf\1", rule))
    compared |= {f".spec.workers[]{path}" for path in re.findall(r"\bw(\.[.a-zA-Z]+) == o\1", rule)}
    free = [f".{path}" for path in mutable]
    for path, schema in ALL.items():
        leaf = "properties" not in schema and schema.get("type") != "array"
        if not path.startswith(".spec") or not leaf or path in compared:
            continue
        inside = any(path.startswith((f"{whole}.", f"{whole}[")) for whole in [*compared, *free])
        opaque = schema.get("x-kubernetes-preserve-unknown-fields")
        assert inside or opaque or path in free, f"{path} may change unseen"
    assert not compared & set(free)
    assert not any(ALL[path].get("x-kubernetes-preserve-unknown-fields") for path in compared)


def test_status_has_neither_defaults_nor_nulls() -> None:
    for path, schema in ALL.items():
        if path.startswith(".status"):
            assert "default" not in schema, path
            assert "nullable" not in schema, path
