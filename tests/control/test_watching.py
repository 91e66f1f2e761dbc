from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engram.spec.names import Annotation
from engram_operator import watching
from engram_operator.model import JobKey, Object, PodView
from engram_operator.tables import ChildTable
from engram_operator.watching import Watch
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.builders import UID
from tests.control.edge import api_of, background, raw_pod, run, until

KEY = JobKey("lab", "digits")


class Followed:
    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.changed: list[JobKey] = []
        self.beats = 0
        self.table = ChildTable(PodView.from_object, self.changed.append)

    def beat(self) -> None:
        self.beats += 1

    @property
    def names(self) -> list[str]:
        return sorted(self.table.of(KEY, UID))

    def watches(self) -> list[Asked]:
        return [asked for asked in self.server.reads("pods") if "watch" in asked.query]

    def lists(self) -> list[Asked]:
        return [asked for asked in self.server.reads("pods") if "watch" not in asked.query]


@asynccontextmanager
async def followed(server: ApiServer, namespace: str = "") -> AsyncIterator[Followed]:
    found = Followed(server)
    async with api_of(server) as api:
        watch = Watch(api, "Pod", namespace, found.table, found.beat)
        async with background(watch.run()) as task:
            await until(lambda: task.done() or watch.listed.is_set(), "the first list")
            yield found


def test_what_exists_is_listed_in_pages_and_what_comes_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAGE", 2)

    async def scenario() -> None:
        async with serving() as server:
            for number in range(5):
                await server.put(raw_pod(f"pod-{number}"))
            async with followed(server) as seen:
                assert len(seen.names) == 5
                assert len(seen.lists()) == 3
                await until(seen.watches, "the watch")
                await server.put(raw_pod("pod-9"))
                await until(lambda: "pod-9" in seen.names, "the new pod")
                await server.delete("Pod", "lab", "pod-0")
                await until(lambda: "pod-0" not in seen.names, "the deleted pod to go")
                assert set(seen.changed) == {KEY}

    run(scenario())


@pytest.mark.parametrize("index", ["²", "٣", "9" * 5000, "-1", "1e3", ""])
def test_an_index_that_is_no_number_of_ours_is_none(index: str) -> None:
    pod = raw_pod("pod-0")
    pod["metadata"]["annotations"] = {Annotation.COMPLETION_INDEX: index}
    assert PodView.from_object(pod).index is None


def test_an_index_is_read() -> None:
    pod = raw_pod("pod-0")
    pod["metadata"]["annotations"] = {Annotation.COMPLETION_INDEX: "9999"}
    assert PodView.from_object(pod).index == 9999


def test_an_object_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def strange(name: str) -> Object:
        return raw_pod(name, status={"conditions": [{"type": "Ready", "lastTransitionTime": "yesterday"}]})

    async def scenario() -> None:
        async with serving() as server:
            await server.put(strange("pod-0"))
            await server.put(raw_pod("pod-1"))
            async with followed(server) as seen:
                assert seen.names == ["pod-1"]
                await until(seen.watches, "the watch")
                await server.put(strange("pod-2"))
                await server.put(raw_pod("pod-3"))
                await until(lambda: "pod-3" in seen.names, "the pod after the strange one")
                assert seen.names == ["pod-1", "pod-3"]
                assert len(seen.watches()) == 1, "the watch goes on"

    run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"/api/v1/pods: pod-{number} cannot be read and is left out" for number in (0, 2)]


def test_only_our_label_is_asked_for() -> None:
    async def scenario() -> None:
        async with serving() as server:
            async with followed(server) as seen:
                await until(seen.watches, "the watch")
            assert {asked.query["labelSelector"] for asked in server.reads("pods")} == {"engram.dev/job"}

    run(scenario())


def test_a_namespaced_watch_asks_for_its_namespace_only() -> None:
    async def scenario() -> None:
        async with serving() as server:
            async with followed(server, "lab") as seen:
                await until(seen.watches, "the watch")
            assert {asked.path for asked in server.reads("pods")} == {"/api/v1/namespaces/lab/pods"}

    run(scenario())


def test_a_cut_watch_is_resumed_where_it_was() -> None:
    async def scenario() -> None:
        async with serving() as server, followed(server) as seen:
            pod = await server.put(raw_pod("pod-0"))
            await until(lambda: seen.names, "the pod")
            server.disconnect()
            await until(lambda: len(seen.watches()) == 2, "the second watch")
            assert seen.watches()[1].query["resourceVersion"] == pod["metadata"]["resourceVersion"]
            assert len(seen.lists()) == 1
            await server.delete("Pod", "lab", "pod-0")
            await until(lambda: not seen.names, "the pod to go")

    run(scenario())


def test_what_vanished_while_the_place_was_lost_is_forgotten() -> None:
    async def scenario() -> None:
        async with serving() as server:
            await server.put(raw_pod("pod-0"))
            await server.put(raw_pod("pod-1"))
            async with followed(server) as seen:
                await until(seen.watches, "the watch")
                server.refuse = lambda asked: Refusal(503, "Down")
                server.disconnect()
                await server.delete("Pod", "lab", "pod-0")
                await server.put(raw_pod("pod-2"))
                server.expire()
                seen.changed.clear()
                server.refuse = lambda asked: None
                await until(lambda: seen.names == ["pod-1", "pod-2"], "the new list")
                assert len(seen.lists()) == 2
                assert KEY in seen.changed

    run(scenario())


def test_a_server_that_is_down_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.01)

    async def scenario() -> None:
        async with serving() as server:
            refused = []

            def refuse(asked: Asked) -> Refusal | None:
                refused.append(asked)
                return Refusal(500, "InternalError") if len(refused) < 4 else None

            server.refuse = refuse
            await server.put(raw_pod("pod-0"))
            async with followed(server) as seen:
                assert seen.names == ["pod-0"]
                assert seen.beats >= 4, "an attempt is a sign of life, too"

    run(scenario())


def test_an_older_event_does_not_undo_an_answer() -> None:
    changed: list[JobKey] = []
    table = ChildTable(PodView.from_object, changed.append)
    newer = raw_pod("pod-0", phase="Running")
    newer["metadata"]["resourceVersion"] = "20"
    older = raw_pod("pod-0", phase="Pending")
    older["metadata"]["resourceVersion"] = "19"
    table.put(newer)
    table.put(older)
    assert table.of(KEY, UID)["pod-0"].phase == "Running"
    table.drop(older)
    assert "pod-0" in table.of(KEY, UID), "what was deleted was an earlier pod of that name"


def test_children_of_another_uid_are_strangers() -> None:
    table = ChildTable(PodView.from_object, lambda key: None)
    pod = raw_pod("pod-0")
    pod["metadata"]["labels"]["engram.dev/job-uid"] = "another"
    table.put(pod)
    assert table.of(KEY, UID) == {}
    assert table.strangers(KEY, UID) == ("pod-0",)
