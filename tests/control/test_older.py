"""A job that an operator of an older version has started keeps a ConfigMap that its pods can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engram.spec import FederatedIncrementalJob
from engram.spec.names import SpecKey
from engram_operator.manifests.older import in_words_of
from engram_operator.model import Object
from tests.control.building import build, make_job
from tests.control.simulation import up

EDITED = """
seed: 3
training: {batchSize: 8}
algorithm: {name: replay, parameters: {exemplarsPerWorker: 20}}
workers:
- {name: edge, replicas: 2, podTemplate: {spec: {tolerations: [{key: a}, {key: b}]}}}
- {name: gpu}
"""


def config_of(text: str) -> Object:
    """The ConfigMap of a job with this spec."""
    return build(make_job(text)).config_map


def job_in(config: Object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config["data"][SpecKey.JOB])
    return found


def holding(document: dict[str, Any], config: Object) -> Object:
    return {**config, "data": {**config["data"], SpecKey.JOB: json.dumps(document, indent=2) + "\n"}}


def test_a_newer_operator_leaves_it_as_it_is() -> None:
    world = up()
    config = world.objects["ConfigMap/digits-spec"]
    older = job_in(config)
    del older["spec"]["evaluation"]["unseen"], older["spec"]["workers"][0]["runAsUser"]
    del older["spec"]["report"]["prometheus"]
    world.objects["ConfigMap/digits-spec"] = holding(older, config)
    world.settle()
    assert world.writes == []


def test_what_changes_while_a_job_runs_is_the_only_change() -> None:
    config = config_of(EDITED)
    older = job_in(config)
    del older["spec"]["report"]["prometheus"], older["spec"]["training"]["threads"]
    changed = config_of(EDITED + "report: {graceSeconds: 7}")
    found = job_in(in_words_of(changed, holding(older, config)))
    older["spec"]["report"]["graceSeconds"] = 7
    assert found == older


def test_a_new_field_that_says_something_is_there() -> None:
    config = config_of(EDITED)
    older = job_in(config)
    del older["spec"]["report"]
    asked = config_of(EDITED + "report: {prometheus: {url: 'https://p.example'}}")
    found = job_in(in_words_of(asked, holding(older, config)))
    assert found["spec"]["report"] == {"prometheus": {"url": "https://p.example"}}


def test_without_one_that_can_be_read_it_is_whole() -> None:
    config = config_of(EDITED)
    for found in (None, {}, holding({"spec": []}, config), {"data": {SpecKey.JOB: "{"}}):
        assert in_words_of(config, found) == config


def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field of a document, the inner ones last."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(part, list):
        for place, value in enumerate(part):
            yield from places(value, (*path, place))


def without(document: dict[str, Any], gone: list[tuple[Any, ...]]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document))
    for path in reversed(gone):
        part: Any = found
        try:
            for key in path[:-1]:
                part = part[key]
            part.pop(path[-1], None)
        except (KeyError, TypeError):
            continue  # it went with what it was in
    return found


CONFIG = config_of(EDITED)
FIELDS = list(places(job_in(CONFIG)["spec"]))
SAID = make_job(EDITED).spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
OPTIONAL = [path for path in FIELDS if path not in set(places(SAID)) and path[:1] != ("workers",)]


@given(st.lists(st.sampled_from(OPTIONAL), unique=True))
def test_whatever_an_older_version_does_not_know_it_is_the_same_job(gone: list[tuple[Any, ...]]) -> None:
    document = job_in(CONFIG)
    older = {**document, "spec": without(document["spec"], gone)}
    kept = in_words_of(CONFIG, holding(older, CONFIG))
    assert job_in(kept) == older, "and nothing is written"
    assert FederatedIncrementalJob.model_validate(job_in(kept)) == FederatedIncrementalJob.model_validate(
        document
    )
