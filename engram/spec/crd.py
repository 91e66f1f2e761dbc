"""The CustomResourceDefinition, made from the types of this package, which are the API's only source.

Structural (no `$ref`, no `anyOf`), with defaults, bounds, list-maps and CEL rules, and small enough for
`kubectl apply`, whose annotation holds at most 256 KiB.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml

from engram.spec.cel import Rule, rules
from engram.spec.job import JobSpec
from engram.spec.names import (
    API_VERSION,
    CATEGORY,
    CRD_NAME,
    GROUP,
    KIND,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
)
from engram.spec.schema import MUTABLE_MARK, Schema, schema_of
from engram.spec.status import JobStatus

COMMAND = "make generate"
HEADER = f"""\
# The CustomResourceDefinition of {API_VERSION} {KIND}.
# Generated from the types in engram/spec by `{COMMAND}`; a test fails when it is stale. Do not edit.
"""

_COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("Phase", ".status.phase", "Where the job stands.", 0),
    ("Task", ".status.display.task", "Task that is running, of all.", 0),
    ("Round", ".status.display.round", "Round that is running, of the whole run.", 0),
    ("Accuracy", ".status.display.accuracy", "Accuracy over all classes seen.", 0),
    ("Forgetting", ".status.display.forgetting", "Forget rate of old classes.", 0),
    ("Workers", ".status.display.workers", "Connected workers, of all.", 0),
    ("Algorithm", ".spec.algorithm.name", "Class-incremental algorithm.", 1),
    ("Dataset", ".spec.dataset.name", "Data set.", 1),
    ("Aggregation", ".spec.aggregation.name", "Aggregation rule.", 1),
    ("Reason", ".status.reason", "Why it stands there.", 1),
)


def build_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME, "labels": {"app.kubernetes.io/part-of": "engram"}},
        "spec": {
            "group": GROUP,
            "names": {
                "categories": [CATEGORY],
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "shortNames": [SHORT_NAME],
                "singular": SINGULAR,
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": build_schema()},
                }
            ],
        },
    }


def build_schema() -> Schema:
    """Return the schema of a whole object, with its CEL rules."""
    spec = copy.deepcopy(schema_of(JobSpec))
    status = copy.deepcopy(schema_of(JobStatus))
    _absent_rather_than_null(status)
    root: Schema = {
        "description": "A federated class-incremental learning run: data, tasks, model, algorithm, workers.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": {**spec, "default": JobSpec().model_dump(mode="json", by_alias=True, exclude_none=True)},
            "status": status,
        },
    }
    for rule in rules(spec):
        place = _place(root, rule)
        place.setdefault("x-kubernetes-validations", []).append(rule.dump())
    _strip(root)
    return root


def render_crd() -> str:
    """Return the CRD as a YAML file with its header."""
    text: str = yaml.safe_dump(build_crd(), sort_keys=False, width=110, allow_unicode=True)
    return HEADER + text


def _columns() -> list[dict[str, Any]]:
    """Return the printer columns of `kubectl get fij`; those of `-o wide` have priority 1."""
    columns: list[dict[str, Any]] = []
    for name, path, description, priority in _COLUMNS:
        column = {"name": name, "type": "string", "jsonPath": path, "description": description}
        columns.append({**column, "priority": priority} if priority else column)
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return [*columns[:6], age, *columns[6:]]


def _place(root: Schema, rule: Rule) -> Schema:
    """Return the schema that a rule belongs to."""
    schema = root
    for step in rule.path:
        schema = schema["items"] if step == "[]" else schema["properties"][step]
    return schema


def _absent_rather_than_null(schema: Schema) -> None:
    """Make optional fields of status plain optional ones: no null, no default."""
    schema.pop("nullable", None)
    schema.pop("default", None)
    for below in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        _absent_rather_than_null(below)


def _strip(schema: Schema) -> None:
    """Remove our own marks."""
    schema.pop(MUTABLE_MARK, None)
    for below in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        _strip(below)
