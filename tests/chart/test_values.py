"""values.schema.json: what it refuses, in words that name the value; and that it knows every value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from charts.generate import CHART, read_values
from engram_operator.settings import LOG_LEVELS, Settings
from tests.cluster.helm import Helm, HelmError, Values

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

REFUSED: list[tuple[Values, str]] = [
    ({"wachNamespaces": ["a"]}, "(root): Additional property wachNamespaces is not allowed"),
    ({"operator": {"replicas": 2}}, "operator: Additional property replicas is not allowed"),
    ({"jobs": {"hostPaths": {"allow": []}}}, "jobs.hostPaths: Additional property allow is not allowed"),
    ({"image": {"pullPolicy": "Alway"}}, "image.pullPolicy must be one of the following: "),
    ({"jobs": {"image": {"digest": "sha256:12"}}}, "jobs.image.digest: Does not match pattern"),
    ({"watchNamespaces": "team-a"}, "watchNamespaces: Invalid type. Expected: array, given: string"),
    ({"watchNamespaces": ["Team"]}, "watchNamespaces.0: Does not match pattern"),
    ({"operator": {"concurrency": 0}}, "operator.concurrency: Must be greater than or equal to 1"),
    ({"operator": {"pollSeconds": "2s"}}, "operator.pollSeconds: Invalid type. Expected: number"),
    ({"operator": {"port": 0}}, "operator.port: Must be greater than or equal to 1"),
    ({"jobs": {"checkpoint": {"size": "1 GB"}}}, "jobs.checkpoint.size: Does not match pattern"),
    ({"jobs": {"hostPaths": {"allowed": ["data"]}}}, "jobs.hostPaths.allowed.0: Does not match pattern"),
    ({"jobs": {"hostPaths": {"allowed": ["/data/"]}}}, "jobs.hostPaths.allowed.0: Does not match pattern"),
    ({"crds": {"enabled": "yes"}}, "crds.enabled: Invalid type. Expected: boolean, given: string"),
    ({"imagePullSecrets": ["registry"]}, "imagePullSecrets.0: Invalid type. Expected: object"),
    ({"prometheus": {"monitor": {"kind": "Probe"}}}, "prometheus.monitor.kind must be one of the following"),
    ({"prometheus": {"rules": {"roundStuckFor": "1 h"}}}, "prometheus.rules.roundStuckFor: Does not match"),
    ({"podLabels": {"cost": 3}}, "podLabels.cost: Invalid type. Expected: string, given: integer"),
    ({"commonLabels": None}, ""),
]
"""Values and what is said of them; empty: nothing, for null takes a default away."""


@pytest.mark.control
@pytest.mark.parametrize(("values", "words"), REFUSED, ids=lambda part: str(part)[:40])
def test_a_wrong_value_is_refused_by_its_path(helm: Helm, values: Values, words: str) -> None:
    if not words:
        assert helm.template(values=values)
        return
    with pytest.raises(HelmError) as refused:
        helm.template(values=values)
    assert words in str(refused.value)


@pytest.mark.control
def test_as_part_of_another_chart_it_takes_what_helm_adds(helm: Helm) -> None:
    assert helm.template(values={"global": {"imageRegistry": "of another chart"}}) == helm.template()


def fields_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that the schema knows of an object; empty: it is Kubernetes' and may be anything."""
    name = part.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = (SCHEMA["definitions"][name] if name else part).get("properties", {})
    return found


def paths(values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every value that has a place of its own in the schema, and those that lack one, marked."""
    for name, value in values.items():
        yield f"{prefix}{name}" + ("" if name in known else " is not in the schema")
        if isinstance(value, dict) and fields_of(known.get(name, {})):
            yield from paths(value, fields_of(known[name]), f"{prefix}{name}.")


def places(known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every place of the schema."""
    for name, part in known.items():
        yield f"{prefix}{name}"
        yield from places(fields_of(part), f"{prefix}{name}.")


def test_schema_and_defaults_know_the_same_values() -> None:
    of_kubernetes = re.compile(r"global$|(resources|affinity)\.")  # not all of them have a default
    known = {place for place in places(SCHEMA["properties"]) if not of_kubernetes.match(place)}
    given = {path for path in paths(DEFAULTS, SCHEMA["properties"]) if not of_kubernetes.match(path)}
    assert known == given


def test_no_object_of_ours_takes_unknown_fields() -> None:
    def objects(part: Any) -> Iterator[Mapping[str, Any]]:
        if isinstance(part, dict):
            if "properties" in part and part.get("type") == "object":
                yield part
            for below in part.values():
                yield from objects(below)

    named = SCHEMA["definitions"]["named"]["items"]  # objects of Kubernetes, which have a name
    assert [part for part in objects(SCHEMA) if part.get("additionalProperties") is not False] == [named]


def test_every_value_is_described() -> None:
    rows = list(read_values(CHART))
    assert [row.key for row in rows if not row.description] == []
    assert len(rows) == len({row.key for row in rows}) > 60


SAME = {
    "concurrency": "concurrency",
    "resync_seconds": "resyncSeconds",
    "poll_seconds": "pollSeconds",
    "status_seconds": "statusSeconds",
    "objects_seconds": "objectsSeconds",
    "request_seconds": "requestSeconds",
    "connect_seconds": "connectSeconds",
}


@pytest.mark.parametrize("setting", SAME)
def test_bounds_are_those_of_the_operator(setting: str) -> None:
    option = Settings.__dataclass_fields__[setting].metadata["option"]
    part = SCHEMA["properties"]["operator"]["properties"][SAME[setting]]
    assert (part["minimum"], part.get("maximum", float("inf"))) == (option.least, option.most)


def test_words_are_those_of_the_operator() -> None:
    operator = SCHEMA["properties"]["operator"]["properties"]
    assert operator["logLevel"]["enum"] == list(LOG_LEVELS)
    policy = Settings.__dataclass_fields__["image_pull_policy"].metadata["option"]
    assert SCHEMA["definitions"]["image"]["properties"]["pullPolicy"]["enum"] == list(policy.choices)
