from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from engram.spec.names import Reason
from engram_operator import controller as controller_module
from engram_operator.controller import Controller
from engram_operator.errors import OperatorError
from engram_operator.model import Credentials, Note, Object, Observed, Plan
from engram_operator.reconcile import reconcile
from engram_operator.settings import Settings
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.builders import SETTINGS, job_object
from tests.control.edge import KEY, FakeClock, api_of, background, batch_job, child, raw_pod, run, until

Answer = Callable[[Object, Observed], Plan]


class Core:
    """Stands for the pure core: says what it is told to, and remembers what it was shown."""

    def __init__(self, answer: Answer = lambda job, observed: Plan()) -> None:
        self.answer = answer
        self.shown: list[Observed] = []

    def __call__(
        self, job: Object, _c: Credentials | None, observed: Observed, _s: Settings, _now: datetime
    ) -> Plan:
        self.shown.append(observed)
        return self.answer(job, observed)


@asynccontextmanager
async def controlling(
    core: Any = reconcile, settings: Settings = SETTINGS, server: ApiServer | None = None
) -> AsyncIterator[tuple[Controller, ApiServer, FakeClock]]:
    clock = FakeClock()
    async with serving() as own:
        used = server or own
        async with api_of(used, settings) as api:
            yield Controller(api, core, settings, clock.clock()), used, clock


async def seen(it: Controller, server: ApiServer, job: Object | None = None) -> Object:
    stored = await server.put(job or job_object())
    it.job_seen(stored)
    return stored


def status_of(server: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = server.find("FederatedIncrementalJob", "lab", "digits").get("status") or {}
    return found


def test_a_job_gets_all_its_children_and_a_second_look_writes_nothing() -> None:
    async def scenario() -> None:
        async with controlling() as (it, server, _):
            await seen(it, server)
            assert await it.look(KEY) == "changed"
            children = {(plural, name) for plural, _, name in server.objects}
            assert {
                ("services", "digits-aggregation"),
                ("configmaps", "digits-spec"),
                ("secrets", "digits-credentials"),
                ("secrets", "digits-worker-tokens"),
                ("jobs", "digits-aggregation"),
                ("jobs", "digits-edge"),
            } <= children
            assert status_of(server)["phase"] == "Starting"
            await it.look(KEY)
            written = len(server.writes())
            assert written <= 12
            assert await it.look(KEY) == "unchanged"
            assert len(server.writes()) == written

    run(scenario())


@pytest.mark.parametrize("last", range(9))
def test_killed_after_any_write_a_new_operator_comes_to_the_same_end(last: int) -> None:
    async def ended(server: ApiServer) -> dict[str, Any]:
        async with controlling(server=server) as (it, _, _):
            await seen(it, server, server.objects.get(("federatedincrementaljobs", "lab", "digits")))
            for job in [item for (plural, _, _), item in server.objects.items() if plural == "jobs"]:
                it.tables.jobs.put(job)
            for _ in range(5):
                try:
                    await it.look(KEY)
                except OperatorError:
                    continue
        return {
            f"{plural}/{name}": item["metadata"]["uid"] for (plural, _, name), item in server.objects.items()
        }

    async def scenario() -> None:
        async with serving() as server:
            writes = 0

            def killed(asked: Asked) -> Refusal | None:
                nonlocal writes
                writes += asked.method != "GET"
                return Refusal(503, "Killed") if writes > last else None

            server.refuse = killed
            before = await ended(server)
            server.refuse = lambda asked: None
            after = await ended(server)
            assert before.items() <= after.items(), "nothing that was made is made anew"
            made = {name for name in after if not name.startswith("events/")}
            assert made == {
                "federatedincrementaljobs/digits",
                "services/digits-aggregation",
                "configmaps/digits-spec",
                "secrets/digits-credentials",
                "secrets/digits-worker-tokens",
                "jobs/digits-aggregation",
                "jobs/digits-edge",
            }
            assert status_of(server)["phase"] == "Starting"
            tokens = server.find("Secret", "lab", "digits-worker-tokens")
            assert len(tokens["data"]) == 2

    run(scenario())


def test_nothing_is_done_before_all_children_are_known() -> None:
    async def scenario() -> None:
        core = Core()
        async with controlling(core) as (it, server, _):
            server.refuse = lambda asked: Refusal(503, "Down") if "/pods" in asked.path else None
            await server.put(batch_job("digits-edge"))
            await seen(it, server)
            async with background(it.run()):
                await until(lambda: server.reads("pods"), "the list of pods to be tried")
                assert core.shown == []
                server.refuse = lambda asked: None
                await until(lambda: core.shown, "the first look")
                assert set(core.shown[0].jobs) == {"digits-edge"}

    run(scenario())


def test_children_that_change_wake_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "SETTLE_SECONDS", 0.0)

    async def scenario() -> None:
        core = Core()
        async with controlling(core) as (it, server, _):
            await seen(it, server)
            async with background(it.run()):
                await until(lambda: core.shown, "the first look")
                await server.put(batch_job("digits-edge"))
                await until(lambda: core.shown[-1].jobs, "a look with the batch Job")

    run(scenario())


def test_changes_of_children_are_looked_at_together() -> None:
    async def scenario() -> None:
        async with controlling(Core()) as (it, server, clock):
            await seen(it, server)
            assert it.queue.take() == KEY
            it.queue.done(KEY)
            for name in ("digits-edge", "digits-aggregation"):
                it.tables.jobs.put(await server.put(batch_job(name)))
            assert it.queue.take() is None
            clock.seconds += controller_module.SETTLE_SECONDS
            assert it.queue.take() == KEY
            it.queue.done(KEY)
            assert it.queue.take() is None

    run(scenario())


def test_a_defect_in_one_job_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        looked = []

        def answer(job: Object, observed: Observed) -> Plan:
            looked.append(job["metadata"]["name"])
            if job["metadata"]["name"] == "bad":
                raise KeyError("a defect")
            return Plan()

        async with controlling(Core(answer)) as (it, server, _):
            await seen(it, server, job_object("bad"))
            await seen(it, server, job_object("good"))
            async with background(it.run()) as task:
                await until(lambda: set(looked) == {"bad", "good"}, "both looks")
                assert not task.done()

    run(scenario())


def test_a_job_that_is_being_deleted_or_anothers_is_left_alone() -> None:
    async def scenario() -> None:
        core = Core()
        async with controlling(core) as (it, server, _):
            going = job_object()
            going["metadata"]["deletionTimestamp"] = "2026-01-02T12:00:00Z"
            await seen(it, server, going)
            assert await it.look(KEY) == "unchanged"
            await seen(it, server, job_object(managedBy="kueue.x-k8s.io/multikueue"))
            assert await it.look(KEY) == "unchanged"
            assert core.shown == []
            assert server.asked == []

    run(scenario())


def test_a_deleted_job_is_forgotten_but_not_its_successor() -> None:
    async def scenario() -> None:
        async with controlling(Core()) as (it, server, _):
            first = await seen(it, server)
            second = job_object()
            second["metadata"]["uid"] = "another"
            stored = await seen(it, server, second)
            it.job_gone(first)
            assert it.table.get(KEY) is not None
            it.job_gone(stored)
            assert it.table.get(KEY) is None
            assert len(it.queue) == 0
            assert await it.look(KEY) == "unchanged"

    run(scenario())


@pytest.mark.parametrize("foreground", [True, False])
def test_pods_of_a_deleted_job_that_a_lost_node_keeps_are_explained_once(foreground: bool) -> None:
    async def scenario() -> None:
        async with controlling() as (it, server, _):
            unknown = [{"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-02T11:58:00Z"}]
            await server.put(
                {"kind": "Node", "metadata": {"name": "edge1"}, "status": {"conditions": unknown}}
            )
            going = job_object()
            if foreground:
                going["metadata"]["deletionTimestamp"] = "2026-01-02T12:00:00Z"
            stored = await seen(it, server, going)
            staying = raw_pod("digits-edge-0", status={"phase": "Running"})
            staying["metadata"]["deletionTimestamp"] = "2026-01-02T12:00:00Z"
            it.tables.pods.put(await server.put(staying))
            if not foreground:
                await server.delete("FederatedIncrementalJob", "lab", "digits")
                it.job_gone(stored)
            for _ in range(2):
                await it.look(KEY)

            (event,) = [item for (plural, _, _), item in server.objects.items() if plural == "events"]
            assert event["reason"] == Reason.DELETION_WAITS
            assert "node edge1, out of touch since 11:58:00 UTC" in event["message"]
            if foreground:
                assert "kubectl delete node edge1" in str(status_of(server)["conditions"])
            else:
                assert it.remembered == 0

    run(scenario())


def test_a_deleted_job_whose_pods_go_leaves_nothing_in_memory() -> None:
    async def scenario() -> None:
        async with controlling() as (it, server, _):
            stored = await seen(it, server)
            left = await server.put(raw_pod("digits-edge-0"))
            it.tables.pods.put(left)
            it.job_gone(stored)
            assert it.remembered == 1
            it.tables.pods.drop(left)
            assert await it.look(KEY) == "unchanged"
            assert it.remembered == 0
            assert [name for plural, _, name in server.objects if plural == "events"] == []

    run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_deleted_while_it_is_looked_at_is_forgotten(fails: bool) -> None:
    async def scenario() -> None:
        async with controlling() as (it, server, _):
            stored = job_object()

            def deleted(asked: Asked) -> Refusal | None:
                if asked.what != "PATCH configmaps/digits-spec":
                    return None
                it.job_gone(stored)
                del server.objects["federatedincrementaljobs", "lab", "digits"]
                return Refusal(503, "Down") if fails else None

            server.refuse = deleted
            async with background(it.run()):
                stored = await seen(it, server)
                await until(lambda: KEY not in it.table and not len(it.queue), "the end of the look")
                assert it.remembered == 0

    run(scenario())


def test_our_own_status_write_does_not_wake_us() -> None:
    async def scenario() -> None:
        async with controlling(Core(lambda job, observed: Plan(status={"phase": "Starting"}))) as found:
            it, server, _ = found
            await seen(it, server)
            assert it.queue.take() == KEY
            await it.look(KEY)
            it.queue.done(KEY)
            it.job_seen(server.find("FederatedIncrementalJob", "lab", "digits"))
            assert it.queue.take() is None

    run(scenario())


def test_figures_are_written_seldom_and_a_new_condition_at_once() -> None:
    async def scenario() -> None:
        status: dict[str, Any] = {"phase": "Running", "progress": {"round": 1}}
        core = Core(lambda job, observed: Plan(status={**status, "progress": dict(status["progress"])}))
        async with controlling(core) as (it, server, clock):
            await seen(it, server)
            assert it.queue.take() == KEY
            assert await it.look(KEY) == "changed"
            clock.seconds += 0.5
            status["progress"]["round"] = 2
            assert await it.look(KEY) == "unchanged"
            assert status_of(server)["progress"] == {"round": 1}
            it.queue.done(KEY)
            due = it.queue.next_due() or 0.0
            assert due == pytest.approx(SETTINGS.status_seconds - 0.5), "the figures are not forgotten"
            clock.seconds += due
            assert await it.look(KEY) == "changed"
            assert status_of(server)["progress"] == {"round": 2}
            status["phase"] = "Succeeded"
            assert await it.look(KEY) == "changed"
            assert status_of(server)["phase"] == "Succeeded"

    run(scenario())


def test_a_transition_is_written_with_its_event_at_once() -> None:
    async def scenario() -> None:
        plans = iter(
            [
                Plan(status={"phase": "Running"}),
                Plan(status={"phase": "Running", "message": "x"}, notes=(Note("Normal", "Resumed", "x"),)),
            ]
        )
        async with controlling(Core(lambda job, observed: next(plans))) as (it, server, _):
            await seen(it, server)
            await it.look(KEY)
            await it.look(KEY)
            assert server.writes()[-2:] == ["PATCH federatedincrementaljobs/digits/status", "POST events"]

    run(scenario())


def test_a_status_that_the_server_does_not_keep_is_not_written_for_ever() -> None:
    async def scenario() -> None:
        core = Core(lambda job, observed: Plan(status={"phase": "Running", "unknown": 1}))
        async with controlling(core) as (it, server, clock):
            await seen(it, server)
            await it.look(KEY)
            stored = server.find("FederatedIncrementalJob", "lab", "digits")
            it.job_seen(await server.put({**stored, "status": {"phase": "Running"}}))
            for _ in range(10):
                clock.seconds += 5.0
                assert await it.look(KEY) == "unchanged"
            clock.seconds += 300.0
            assert await it.look(KEY) == "changed"

    run(scenario())


def test_leftovers_are_waited_for() -> None:
    async def scenario() -> None:
        core = Core()
        async with controlling(core) as (it, server, _):
            await server.put(child("ConfigMap", "digits-spec", uid="old"))
            await seen(it, server)
            assert it.queue.take() == KEY
            await it.look(KEY)
            it.queue.done(KEY)
            assert core.shown == []
            assert it.queue.next_due() == controller_module.LEFTOVER_PAUSE
            await server.delete("ConfigMap", "lab", "digits-spec")
            await it.look(KEY)
            assert core.shown[0].complete

    run(scenario())


def test_a_plan_that_asks_for_it_is_looked_at_again() -> None:
    async def scenario() -> None:
        async with controlling(Core(lambda job, observed: Plan(wake_after=42.0))) as (it, server, _):
            await seen(it, server)
            assert it.queue.take() == KEY
            await it.look(KEY)
            it.queue.done(KEY)
            assert it.queue.next_due() == 42.0

    run(scenario())


def test_a_resync_finds_what_the_watch_has_missed() -> None:
    async def scenario() -> None:
        core = Core()
        async with controlling(core, replace(SETTINGS, resync_seconds=0.0)) as (it, server, _):
            await seen(it, server, job_object("gone"))
            await server.delete("FederatedIncrementalJob", "lab", "gone")
            await server.put(job_object())
            async with background(it.run()):
                await until(lambda: list(it.table) == [KEY], "the table to be right")
                await until(lambda: core.shown, "a look")

    run(scenario())


def test_finished_jobs_cost_no_request_at_a_resync() -> None:
    async def scenario() -> None:
        async with controlling() as (it, server, _):
            job = job_object()
            ended = {
                "status": "True",
                "reason": "Finished",
                "message": "",
                "lastTransitionTime": "2026-01-02T11:00:00Z",
            }
            job["status"] = {
                "phase": "Succeeded",
                "startTime": "2026-01-02T10:00:00Z",
                "completionTime": "2026-01-02T11:00:00Z",
                "conditions": [{"type": "Complete", "reason": "Finished", "message": "", **ended}],
            }
            await seen(it, server, job)
            await it.look(KEY)
            await it.look(KEY)
            assert [asked for asked in server.asked if asked.method == "GET"] == []

    run(scenario())


def test_a_stall_is_told() -> None:
    async def scenario() -> None:
        async with controlling(Core()) as (it, server, clock):
            await seen(it, server)
            clock.seconds += 400.0
            assert all(seconds == 400.0 for _, seconds in it.ages())
            await asyncio.sleep(0)

    run(scenario())
