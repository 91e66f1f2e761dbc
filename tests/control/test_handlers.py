"""kopf against the fake API server: what reaches the controller, and that kopf itself writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import kopf
import pytest

from engram.spec.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from engram_operator.handlers import Ending, Insights, build_registry, end_if_blind, kopf_settings
from tests.control.api_server import ApiServer, Object, serving
from tests.control.builders import SETTINGS, job_object
from tests.control.edge import background, run, until

VERBS = ["get", "list", "watch", "patch"]
EXTENSIONS = "apiextensions.k8s.io"


def discovery() -> dict[str, Object]:
    """What kopf asks for before it watches anything."""

    def served(name: str, kind: str, *, namespaced: bool) -> Object:
        return {
            "name": name,
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": namespaced,
            "verbs": VERBS,
        }

    def group(name: str, version: str) -> Object:
        only = {"groupVersion": f"{name}/{version}", "version": version}
        return {"name": name, "versions": [only], "preferredVersion": only}

    core = [served("namespaces", "Namespace", namespaced=False), served("events", "Event", namespaced=True)]
    crds = [served("customresourcedefinitions", "CustomResourceDefinition", namespaced=False)]
    return {
        "/api": {"versions": ["v1"]},
        "/api/v1": {"resources": core},
        "/apis": {"groups": [group(GROUP, VERSION), group(EXTENSIONS, "v1")]},
        f"/apis/{API_VERSION}": {"resources": [served(PLURAL, KIND, namespaced=True)]},
        f"/apis/{EXTENSIONS}/v1": {"resources": crds},
    }


class Woken:
    """Stands for the controller: remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []
        self.gone: list[str] = []
        self.running = False
        self.breaks = asyncio.Event()

    def job_seen(self, job: Mapping[str, Any], *, listed: bool = False) -> None:
        self.seen.append((job["metadata"]["name"], listed))

    def job_gone(self, job: Mapping[str, Any]) -> None:
        self.gone.append(job["metadata"]["name"])

    async def run(self) -> None:
        self.running = True
        try:
            await self.breaks.wait()
            raise RuntimeError("broken")
        finally:
            self.running = False


class Running(NamedTuple):
    server: ApiServer
    woken: Woken
    task: asyncio.Task[None]
    ending: Ending


@asynccontextmanager
async def kopf_running(namespaces: tuple[str, ...] = ()) -> AsyncIterator[Running]:
    """kopf with our handlers, over a server that knows the job `old`."""
    woken, ending = Woken(), Ending(asyncio.Event())
    async with serving() as server:
        server.other = discovery()
        await server.put(job_object("old"))

        async def login() -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(server=server.url)

        registry = build_registry(woken, login, ending)
        running = kopf.operator(
            registry=registry,
            settings=kopf_settings(SETTINGS),
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=ending.flag,
        )
        task = asyncio.create_task(running)
        try:
            await until(lambda: task.done() or woken.seen, "the job that exists")
            yield Running(server, woken, task, ending)
        finally:
            ending.flag.set()
            server.disconnect()
            await asyncio.gather(task, return_exceptions=True)


def test_jobs_wake_the_controller_and_kopf_writes_nothing() -> None:
    async def scenario() -> None:
        async with kopf_running() as (server, woken, _, _):
            assert woken.running
            assert woken.seen == [("old", True)]
            await server.put(job_object("new"))
            await until(lambda: ("new", False) in woken.seen, "the job that comes")
            await server.put(job_object("new", generation=2))
            await until(lambda: woken.seen.count(("new", False)) == 2, "the change")
            await server.delete(KIND, "lab", "new")
            await until(lambda: woken.gone == ["new"], "the deletion")
            assert [asked.method for asked in server.asked if asked.method != "GET"] == []

    run(scenario())


def test_a_job_that_kopf_could_not_copy_wakes_the_controller() -> None:
    template: Object = {}
    for _ in range(700):  # copying takes twice as many frames, which is more than there are
        template = {"a": template}

    async def scenario() -> None:
        async with kopf_running() as (server, woken, _, _):
            await server.put({**job_object("deep"), "spec": {"aggregator": {"podTemplate": template}}})
            await until(lambda: ("deep", False) in woken.seen, "the job that nests deeply")

    run(scenario())


@pytest.mark.parametrize(
    ("namespaces", "paths"),
    [
        ((), {f"/apis/{API_VERSION}/{PLURAL}"}),
        (("lab", "other"), {f"/apis/{API_VERSION}/namespaces/{name}/{PLURAL}" for name in ("lab", "other")}),
    ],
)
def test_nothing_but_jobs_of_the_watched_namespaces_is_listed(
    namespaces: tuple[str, ...], paths: set[str]
) -> None:
    async def scenario() -> set[str]:
        async with kopf_running(namespaces) as (server, _, _, _):
            await until(lambda: any("watch" in asked.query for asked in server.asked), "the watch")
            return {asked.path for asked in server.asked} - {*discovery(), "/version"}

    assert run(scenario()) == paths


def test_a_broken_controller_ends_the_operator() -> None:
    async def scenario() -> None:
        async with kopf_running() as (server, woken, task, ending):
            woken.breaks.set()
            await until(ending.flag.is_set, "the stop flag")
            server.disconnect()
            await asyncio.wait_for(task, 15)
            assert ending.broken

    run(scenario())


def test_kopf_that_finds_nothing_to_watch_ends_the_operator() -> None:
    async def scenario() -> None:
        async with serving() as server:
            server.other = discovery() | {"/apis": {"groups": []}}
            ending, insights = Ending(asyncio.Event()), Insights()

            async def login() -> kopf.ConnectionInfo:
                return kopf.ConnectionInfo(server=server.url)

            async with background(end_if_blind(insights, ending)):
                await kopf.operator(
                    registry=build_registry(Woken(), login, ending),
                    settings=kopf_settings(SETTINGS),
                    clusterwide=True,
                    stop_flag=ending.flag,
                    insights=insights,
                )
            assert ending.broken

    run(scenario())


def test_an_orderly_end_is_no_break() -> None:
    async def scenario() -> None:
        async with kopf_running() as (server, woken, task, ending):
            ending.flag.set()
            server.disconnect()
            await asyncio.wait_for(task, 15)
            assert not woken.running
            assert not ending.broken

    run(scenario())
