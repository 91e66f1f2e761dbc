from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engram.spec.crd import build_crd
from engram.spec.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from engram_operator.api import Api
from engram_operator.errors import StartError
from engram_operator.preflight import check, missing_fields, until_outdated
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.builders import SETTINGS
from tests.control.edge import api_of, run

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SCHEMA: dict[str, Any] = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def served(schema: dict[str, Any]) -> dict[str, Any]:
    kind = {"group": GROUP, "kind": KIND, "version": VERSION}
    found = {**schema, "x-kubernetes-group-version-kind": [kind]}
    return {"components": {"schemas": {"dev.engram.v1alpha1.FederatedIncrementalJob": found}}}


@asynccontextmanager
async def cluster(schema: dict[str, Any] = SCHEMA) -> AsyncIterator[tuple[ApiServer, Api]]:
    async with serving() as server, api_of(server) as api:
        server.other = {
            "/version": {"major": "1", "minor": "32+"},
            f"/apis/{API_VERSION}": {"resources": [{"name": PLURAL}, {"name": f"{PLURAL}/status"}]},
            f"/openapi/v3/apis/{API_VERSION}": served(schema),
            REVIEWS: {"status": {"allowed": True}},
        }
        yield server, api


def sentence(**changes: Any) -> str:
    async def scenario() -> str:
        async with cluster(changes.get("schema", SCHEMA)) as (server, api):
            server.other |= changes.get("other", {})
            for path in changes.get("gone", ()):
                del server.other[path]
            server.refuse = changes.get("refuse", server.refuse)
            with pytest.raises(StartError) as found:
                await check(api, "https://here", changes.get("settings", SETTINGS))
            return str(found.value)

    return run(scenario())


def test_a_cluster_that_has_all_is_fine() -> None:
    async def scenario() -> None:
        async with cluster() as (_, api):
            await check(api, "https://here", SETTINGS)

    run(scenario())


def test_no_cluster() -> None:
    async def scenario() -> None:
        async with cluster() as (server, api):
            await server.__aexit__(None, None, None)
            with pytest.raises(
                StartError, match=r"no cluster can be reached at https://here: .*--kubeconfig"
            ):
                await check(api, "https://here", SETTINGS)

    run(scenario())


def test_credentials_that_are_refused() -> None:
    said = sentence(refuse=lambda asked: Refusal(401, "Unauthorized"))
    assert said.startswith("the cluster at https://here does not accept these credentials: log in again")


def test_a_cluster_that_is_too_old() -> None:
    said = sentence(other={"/version": {"major": "1", "minor": "30"}})
    assert said == "the cluster at https://here runs Kubernetes 1.30: 1.31 or later is needed"


def test_no_crd() -> None:
    wanted = (
        "the CRD federatedincrementaljobs.engram.dev is not installed: run "
        "`engram crd | kubectl apply --server-side --force-conflicts -f -`"
    )
    assert sentence(gone=[f"/apis/{API_VERSION}"]) == wanted
    assert sentence(other={f"/apis/{API_VERSION}": {"resources": []}}) == wanted


def test_a_crd_of_an_older_version() -> None:
    old = copy.deepcopy(SCHEMA)
    del old["properties"]["spec"]["properties"]["evaluation"]
    del old["properties"]["status"]["properties"]["conditions"]["items"]["properties"]["reason"]
    assert sentence(schema=old) == (
        "the CRD federatedincrementaljobs.engram.dev is of another version and does not know "
        "spec.evaluation, status.conditions[].reason: run "
        "`engram crd | kubectl apply --server-side --force-conflicts -f -`"
    )


def test_a_crd_that_becomes_older_is_noticed_when_it_was_seen_twice() -> None:
    """An API server that is away, or serves no CRD for a moment, is not taken for it."""
    old = copy.deepcopy(SCHEMA)
    del old["properties"]["status"]["properties"]["report"]
    looks = itertools.count(1)
    answers = {2: Refusal(503, "ServiceUnavailable"), 3: Refusal(404, "NotFound")}

    async def scenario() -> str:
        async with cluster() as (server, api):

            def look(asked: Asked) -> Refusal | None:
                if asked.path != f"/apis/{API_VERSION}":
                    return None
                number = next(looks)
                if number == 5:
                    server.other[f"/openapi/v3/apis/{API_VERSION}"] = served(old)
                return answers.get(number)

            server.refuse = look
            return await asyncio.wait_for(until_outdated(api, every=0.01), 10)

    assert "is of another version and does not know status.report: run" in run(scenario())
    assert next(looks) == 7, "two looks saw it"


def test_a_crd_of_a_newer_version_is_fine() -> None:
    newer = copy.deepcopy(SCHEMA)
    newer["properties"]["spec"]["properties"]["future"] = {"type": "string"}
    assert list(missing_fields(SCHEMA, newer)) == []


def test_missing_rights_are_named() -> None:
    async def scenario() -> None:
        async with cluster() as (server, api):
            asked: list[dict[str, Any]] = []

            def remember(request: Asked) -> Refusal | None:
                if request.path == REVIEWS:
                    asked.append(request.body["spec"]["resourceAttributes"])
                return None

            server.refuse = remember
            await check(api, "https://here", replace(SETTINGS, namespaces=("lab", "other")))
            assert {item["namespace"] for item in asked} == {"lab", "other"}
            assert all(item["resource"] != "nodes" for item in asked), "nodes can be missed"

    run(scenario())
    settings = replace(SETTINGS, namespaces=("lab",))
    said = sentence(other={REVIEWS: {"status": {"allowed": False}}}, settings=settings)
    assert said.startswith(
        "the operator's account may not get federatedincrementaljobs.engram.dev in namespace lab, list "
    )
    assert "create jobs.batch in namespace lab" in said
