"""`docs/reference/`: every field of the job file and every reason of a condition, from the types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from engram.spec.algorithms import ALGORITHMS
from engram.spec.base import Spec
from engram.spec.cel import rules
from engram.spec.exit_codes import EXIT_MEANINGS
from engram.spec.job import JobSpec
from engram.spec.names import (
    API_VERSION,
    GROUP_NAME_LENGTH,
    JOB_NAME_LENGTH,
    JOB_NAME_PATTERN,
    KIND,
    Condition,
)
from engram.spec.parameters import AGGREGATIONS, MODELS
from engram.spec.reasons import Reason
from engram.spec.schema import INT_OR_STRING, MUTABLE_MARK, PRESERVE, Schema, schema_of
from engram.spec.wording import bounds_words

NOTE = "<!-- Generated from engram/spec by `make generate`. Do not edit. -->\n"

_HEAD = "| field | type | default | changes while running | meaning |\n|---|---|---|---|---|"
_PARAMETER_HEAD = "| parameter | type | default | meaning |\n|---|---|---|---|"


def render_job() -> str:
    """Return `docs/reference/job.md`: every field with type, bounds, default, mutability and meaning."""
    spec = schema_of(JobSpec)
    parts = [
        NOTE,
        f"# {KIND}\n",
        f"Every field of a job file (`apiVersion: {API_VERSION}`, `kind: {KIND}`). A field that is "
        "absent, or null where null has no meaning, has its default; an unknown field is an error.\n",
        f"`metadata.name` has at most {JOB_NAME_LENGTH} characters and matches `{JOB_NAME_PATTERN}`; "
        f"names of worker groups have at most {GROUP_NAME_LENGTH}.\n",
        "Once `status.startTime` is set, only fields marked *yes* may change. Objects of Kubernetes' own and "
        "`parameters` are marked *ignored*: an edit is accepted, has no effect on the run, and status says "
        "so.\n",
        *_sections(spec, "spec", False),
        *_parameters(),
        "## Rules that span fields\n",
        "The API server and `engram validate` refuse a job that breaks one of these.\n",
        "\n".join(f"- `{_where(rule.path)}`: {rule.message}." for rule in rules(spec)) + "\n",
    ]
    return "\n".join(parts)


def render_reasons() -> str:
    """Return `docs/reference/reasons.md`: conditions, reasons and exit codes."""
    lines = [
        NOTE,
        "# Conditions, reasons, exit codes\n",
        "`kubectl get fij -o wide` shows the reason of the condition that decides the phase; `kubectl "
        "describe fij` shows all. The message beside a reason names the field, pod or node and the remedy.\n",
        "## Reasons\n",
        "| reason | conditions | meaning |",
        "|---|---|---|",
        *(f"| `{reason}` | {', '.join(reason.conditions)} | {reason.meaning} |" for reason in sorted(Reason)),
        "\n## Conditions\n",
        "| condition | reasons |",
        "|---|---|",
        *(f"| `{condition}` | {', '.join(_reasons_of(condition))} |" for condition in Condition),
        "\n## Exit codes\n",
        "What `engram aggregator` and `engram worker` end with, and what the failure policy of their Job "
        "does. `engram run` and the other commands that a person types end with 0, 42 for bad input of every "
        "kind, 75 when interrupted with a checkpoint, and 1 otherwise.\n",
        "| code | meaning | aggregator's Job | workers' Job |",
        "|---|---|---|---|",
        *(
            f"| {row.code:d} | {row.meaning} | {row.aggregator or ''} | {row.worker or ''} |"
            for row in EXIT_MEANINGS
        ),
    ]
    return "\n".join(lines) + "\n"


def _where(path: tuple[str, ...]) -> str:
    """Return a rule's place as a user reads it."""
    return ".".join(path).replace(".[]", "[]") or KIND


def _reasons_of(condition: Condition) -> list[str]:
    return [f"`{reason}`" for reason in Reason if condition in reason.conditions]


def _sections(schema: Schema, place: str, mutable: bool) -> Iterator[str]:
    """Yield the table of one object, then those of the objects in it."""
    yield f"## {place}\n"
    yield f"{schema.get('description', '')}\n"
    rows = [_row(key, below, mutable) for key, below in schema["properties"].items()]
    yield "\n".join([_HEAD, *rows]) + "\n"
    for key, below in schema["properties"].items():
        inner = mutable or bool(below.get(MUTABLE_MARK))
        if "properties" in below:
            yield from _sections(below, f"{place}.{key}", inner)
        elif "properties" in below.get("items", {}):
            yield from _sections(below["items"], f"{place}.{key}[]", inner)


def _row(key: str, schema: Schema, mutable: bool) -> str:
    """Return the row of one field."""
    if mutable or schema.get(MUTABLE_MARK):
        changes = "yes"
    elif schema.get(PRESERVE) or schema.get("items", {}).get(PRESERVE):
        changes = "ignored"
    else:
        changes = "see below" if "properties" in schema or "properties" in schema.get("items", {}) else "no"
    meaning = _escape(schema.get("description", ""))
    return f"| `{key}` | {_type(schema)} | {_default(schema)} | {changes} | {meaning} |"


def _type(schema: Schema) -> str:
    """Return type, choices and bounds in words."""
    if "enum" in schema:
        words = " \\| ".join(f"`{choice}`" for choice in schema["enum"])
    elif schema.get(INT_OR_STRING):
        words = "whole number from 1, or percentage from 1% to 100%"
    elif schema.get(PRESERVE):
        words = "object"
    else:
        kind = str(schema.get("type"))
        names = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
        words = names.get(kind, kind) + bounds_words(schema)
        if kind == "array":
            words = f"list of at most {schema['maxItems']}: {_type(schema['items'])}"
        elif "maxLength" in schema:
            words += f", at most {schema['maxLength']} characters"
        if "pattern" in schema:
            words += f", matches `{_escape(schema['pattern'])}`"
    return f"{words}, or null" if schema.get("nullable") else words


def _default(schema: Schema) -> str:
    """Return the default as YAML has it."""
    if "default" not in schema:
        return "`null`" if schema.get("nullable") else "required"
    return "" if "properties" in schema else f"`{json.dumps(schema['default'])}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _parameters() -> Iterator[str]:
    """Yield the tables of parameters of everything built in."""
    groups: tuple[tuple[str, Mapping[str, type[Spec]]], ...] = (
        ("spec.algorithm.parameters", ALGORITHMS),
        ("spec.aggregation.parameters", AGGREGATIONS),
        ("spec.model.parameters", MODELS),
    )
    for place, models in groups:
        yield f"## {place}\n"
        yield "Code of your own (`package.module:Name`) receives its parameters as they stand in the file.\n"
        for name, model in models.items():
            schema = schema_of(model)
            fields = schema.get("properties", {})
            if not fields:
                yield f"### {name}\n\nTakes no parameters.\n"
                continue
            rows = [
                f"| `{key}` | {_type(below)} | {_default(below)} | {_escape(below.get('description', ''))} |"
                for key, below in fields.items()
            ]
            title = schema.get("description", "").partition(": ")[2]
            yield f"### {name}\n\n{title[:1].upper()}{title[1:]}\n"
            yield "\n".join([_PARAMETER_HEAD, *rows]) + "\n"
