"""A cluster whose CRD is older than the operator: what gets lost, who says so, and what an upgrade restores.

The older CRD lacks two parts of today's, and serves another group, so that it stands beside the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engram.spec import load_yaml, parse_job
from engram.spec.crd import build_crd
from engram.spec.names import API_VERSION, KIND, PLURAL
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.fixtures import until_established
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.waiting import until

pytestmark = pytest.mark.control

GROUP = "older.engram.dev"
NAME = f"{PLURAL}.{GROUP}"
LACKING = ("evaluation", "protocol")
"""Parts of spec that the older CRD does not know."""

TEXT = f"""\
apiVersion: {GROUP}/v1alpha1
kind: {KIND}
metadata: {{name: digits}}
spec:
  seed: 7
  evaluation: {{every: round}}
"""


def build(*, older: bool) -> Object:
    """Return today's CRD, or an older one, for the group of these tests."""
    crd = build_crd()
    crd["metadata"]["name"] = NAME
    crd["spec"]["group"] = GROUP
    crd["spec"]["names"].update(categories=[], shortNames=[])
    if older:
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        spec = schema["properties"]["spec"]
        for key in LACKING:
            del spec["properties"][key], spec["default"][key]
        for part in (schema, spec):
            rules = part["x-kubernetes-validations"]
            part["x-kubernetes-validations"] = [
                rule for rule in rules if not _names_what_is_newer(rule["rule"])
            ]
    return crd


def _names_what_is_newer(rule: str) -> bool:
    """Whether a rule compares with the old object, or names a part that the older CRD lacks."""
    return "oldSelf" in rule or any(f"self.{key}" in rule for key in LACKING)


@pytest.fixture
def older(api: Api, crd: str) -> Iterator[str]:
    """The older CRD, served; its path for objects of the default namespace."""
    path = f"/apis/{GROUP}/v1alpha1/namespaces/default/{PLURAL}"
    api.apply(build(older=True))
    until_established(api, NAME)
    until(lambda: takes_objects(api, path), "the older CRD to be served")
    yield path
    api.delete("CustomResourceDefinition", NAME)
    until(lambda: gone(api), "the older CRD to be gone")


def gone(api: Api) -> bool:
    """Tell whether the CRD is away: to apply it anew before that would change the one that is going."""
    try:
        api.get("CustomResourceDefinition", NAME)
    except ApiError as error:
        if error.code == 404:
            return True
        raise
    return False


def takes_objects(api: Api, path: str) -> bool:
    """Tell whether the API server would create an object at `path`.

    Not yet (404), or not any more (405) while it still sees the CRD of the test before: it lists objects all
    the while.
    """
    try:
        api.ask("POST", path, load_yaml(TEXT), query={"dryRun": "All"})
    except ApiError as error:
        if error.code in (404, 405):
            return False
        raise
    return True


def ours(stored: Object) -> Object:
    """Return the stored object as one of the real group."""
    return {**stored, "apiVersion": API_VERSION}


def test_an_older_crd_refuses_new_fields_loses_them_or_gets_them_by_upgrade(
    api: Api, older: str, kubectl: Kubectl
) -> None:
    with pytest.raises(KubectlError, match=r'unknown field "spec\.evaluation"'):
        kubectl.inside("default").apply(TEXT)

    document: Any = load_yaml(TEXT)
    stored = api.ask("POST", older, document).body
    assert "evaluation" not in stored["spec"]  # pruned: the client was told by a warning only
    job = parse_job(ours(stored))
    assert (job.spec.seed, job.spec.evaluation.every) == (7, "task")

    api.apply(build(older=False))

    def upgraded() -> Object | None:
        found: Object = api.ask("GET", f"{older}/digits").body
        return found if set(LACKING) <= set(found["spec"]) else None

    stored = until(upgraded, "the new CRD's defaults in the stored object")
    assert parse_job(ours(stored)).spec == job.spec
    stored["spec"]["evaluation"]["every"] = "round"
    assert api.ask("PUT", f"{older}/digits", stored).body["spec"]["evaluation"]["every"] == "round"


def test_a_new_field_may_appear_in_a_job_that_started_under_the_older_crd(api: Api, older: str) -> None:
    api.ask("POST", older, load_yaml(TEXT))
    begun = {"status": {"startTime": "2026-01-01T00:00:00Z"}}
    content = "application/merge-patch+json"
    api.ask("PATCH", f"{older}/digits/status", begun, content=content)
    api.apply(build(older=False))

    def enforced() -> bool:
        """Whether the new CRD's rule holds the started job fast."""
        try:
            api.ask(
                "PATCH", f"{older}/digits", {"spec": {"seed": 8}}, content=content, query={"dryRun": "All"}
            )
        except ApiError as error:
            return "the job has started" in error.message
        return False

    until(enforced, "the new CRD's rules")
    labelled = {"metadata": {"labels": {"a": "b"}}}
    stored = api.ask("PATCH", f"{older}/digits", labelled, content=content).body
    assert stored["spec"]["evaluation"]["every"] == "task"
