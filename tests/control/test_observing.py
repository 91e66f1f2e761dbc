from __future__ import annotations

import asyncio

import pytest

from engram.spec import parse_job
from engram_operator.manifests import with_checkpoint
from engram_operator.model import Credentials, Plan
from tests.control.builders import CREDENTIALS, ago, job_object
from tests.control.edge import KEY, batch_job, child, edge, raw_pod, refusing, run, secret


def test_children_that_exist_are_read_by_their_names() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            for kind, name in (("Service", "digits-aggregation"), ("ConfigMap", "digits-spec")):
                await it.server.put(child(kind, name))
            await it.server.put(secret(CREDENTIALS.data()))
            sight = await it.look()
            assert sight.observed.complete
            assert set(sight.observed.objects) == {"Service/digits-aggregation", "ConfigMap/digits-spec"}
            assert sight.observed.secrets == {"digits-credentials": ("ca.crt", "key", "tls.crt", "tls.key")}
            assert sight.credentials == CREDENTIALS
            assert all("labelSelector" not in asked.query for asked in it.server.reads("secrets"))

    run(scenario())


def test_a_new_job_is_given_new_credentials() -> None:
    async def scenario() -> tuple[Credentials | None, Credentials | None]:
        async with edge() as it:
            await it.job()
            first = (await it.look(0.0)).credentials
            return first, (await it.look(0.0)).credentials

    first, second = run(scenario())
    assert first is not None
    assert second is not None
    assert first.key != second.key


def test_an_unusable_secret_is_no_reason_to_make_credentials() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            await it.server.put(secret({"key": "ab"}))
            assert (await it.look(0.0)).credentials is None
            broken = child("Secret", "digits-credentials", data={"key": "not base64!"})
            await it.server.put(broken)
            assert (await it.look(0.0)).credentials is None

    run(scenario())


def test_what_was_read_is_believed_for_a_while() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            await it.server.put(child("ConfigMap", "digits-spec"))
            await it.server.put(child("Service", "digits-aggregation"))
            assert (await it.look(30.0)).observed.complete
            asked = len(it.server.asked)
            again = await it.look(30.0)
            assert not again.observed.complete
            assert set(again.observed.objects) == {"ConfigMap/digits-spec"}, "what it was started with"
            assert again.credentials is None
            assert len(it.server.asked) == asked
            it.clock.seconds += 30.0
            assert (await it.look(30.0)).observed.complete

    run(scenario())


def test_what_was_written_is_what_a_job_was_started_with() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            await it.server.put(child("ConfigMap", "digits-spec", data={"job.yaml": "refused"}))
            await it.look()
            mended = child("ConfigMap", "digits-spec", data={"job.yaml": "mended"})
            await it.carry_out(Plan(apply=(mended,)))
            found = (await it.look()).observed.objects["ConfigMap/digits-spec"]
            assert found["data"] == {"job.yaml": "mended"}

    run(scenario())


def test_batch_jobs_that_come_are_no_reason_to_read_children_again() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            await it.look()
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge")))
            assert not (await it.look()).observed.complete

    run(scenario())


def test_the_claim_that_a_job_was_started_with_is_read_whatever_settings_say_now() -> None:
    async def scenario() -> None:
        async with edge() as it:
            stored = await it.job()
            resolved = with_checkpoint(parse_job(stored), "1Gi")
            data = {"job.yaml": resolved.model_dump_json(by_alias=True)}
            await it.server.put(child("ConfigMap", "digits-spec", data=data))
            await it.server.put(child("PersistentVolumeClaim", "digits-checkpoint"))
            assert "PersistentVolumeClaim/digits-checkpoint" in (await it.look()).observed.objects

    run(scenario())


@pytest.mark.parametrize("change", ["spec edited", "batch Job lost", "told to"])
def test_a_reason_to_doubt_has_children_read_again(change: str) -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge")))
            await it.look()
            if change == "spec edited":
                await it.job(generation=2)
            elif change == "batch Job lost":
                it.tables.jobs.drop(await it.server.put(batch_job("digits-edge")))
            else:
                it.cluster.distrust(KEY)
            assert (await it.look()).observed.complete

    run(scenario())


def test_a_finished_job_costs_no_request() -> None:
    async def scenario() -> None:
        async with edge() as it:
            job = job_object()
            job["status"] = {"completionTime": "2026-01-02T11:00:00Z"}
            it.table.put(await it.server.put(job))
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge", parallelism=2)))
            sight = await it.look(0.0)
            assert set(sight.observed.jobs) == {"digits-edge"}
            assert it.server.asked == []
            assert it.cluster.unfinished == 0

    run(scenario())


def test_somebody_elses_object_is_foreign() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            theirs = child("ConfigMap", "digits-spec")
            theirs["metadata"]["ownerReferences"] = []
            await it.server.put(theirs)
            observed = (await it.look()).observed
            assert observed.foreign == ("ConfigMap/digits-spec",)
            assert observed.objects == {}
            await it.server.delete("ConfigMap", "lab", "digits-spec")
            assert (await it.look()).observed.foreign == (), "they may take it away at any time"

    run(scenario())


def test_leftovers_of_a_deleted_job_are_waited_for_and_then_foreign() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge", uid="old")))
            await it.server.put(child("ConfigMap", "digits-spec", uid="old"))
            assert (await it.look(0.0)).leftovers
            it.clock.seconds += 61.0
            sight = await it.look(0.0)
            assert not sight.leftovers
            assert sight.observed.foreign == ("ConfigMap/digits-spec", "Job/digits-edge")
            it.tables.jobs.drop(await it.server.put(batch_job("digits-edge", uid="old")))
            await it.server.delete("ConfigMap", "lab", "digits-spec")
            sight = await it.look(0.0)
            assert not sight.leftovers
            assert sight.observed.foreign == ()

    run(scenario())


def test_events_are_read_only_of_a_job_that_lacks_pods_for_long() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            job = await it.server.put(batch_job("digits-edge", parallelism=2))
            it.tables.jobs.put(job)
            it.tables.pods.put(await it.server.put(raw_pod("digits-edge-0-x")))
            refusal = "pods is forbidden: exceeded quota"
            for number, message in ((1, "older"), (2, refusal)):
                event = child("Event", f"e{number}", reason="FailedCreate", message=message)
                event["involvedObject"] = {"uid": job["metadata"]["uid"]}
                event["lastTimestamp"] = f"2026-01-02T12:00:0{number}Z"
                await it.server.put(event)
            sight = await it.look()
            assert sight.observed.refusals == {}
            assert sight.look_again == pytest.approx(5.1)
            assert it.server.reads("events") == []
            it.clock.seconds += 5.0
            sight = await it.look()
            assert sight.observed.refusals == {"digits-edge": refusal}
            assert len(it.server.reads("events")) == 1
            it.clock.seconds += 5.0
            assert (await it.look()).observed.refusals == {"digits-edge": refusal}
            assert len(it.server.reads("events")) == 1, "what was read is believed for 30 s"
            it.tables.pods.put(await it.server.put(raw_pod("digits-edge-1-x")))
            sight = await it.look()
            assert sight.observed.refusals == {}
            assert sight.look_again is None

    run(scenario())


def test_events_are_read_of_a_pod_that_does_not_start() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge")))
            since = ago(4.0).isoformat()
            scheduled = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}]
            pod = raw_pod("digits-edge-0-x", phase="Pending", status={"conditions": scheduled})
            stored = await it.server.put(pod)
            it.tables.pods.put(stored)
            event = child("Event", "e", type="Warning", reason="FailedMount", message="no such secret")
            event["involvedObject"] = {"uid": stored["metadata"]["uid"]}
            await it.server.put(event)
            sight = await it.look()
            assert sight.observed.warnings == {}
            assert sight.look_again == pytest.approx(16.1)
            it.clock.seconds += 16.0
            assert (await it.look()).observed.warnings == {"digits-edge-0-x": "no such secret"}

    run(scenario())


@pytest.mark.parametrize("over", [True, False], ids=["over", "not over"])
def test_a_mount_that_was_tried_again_with_success_is_no_warning(over: bool) -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            it.tables.jobs.put(await it.server.put(batch_job("digits-edge")))
            scheduled = [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(30).isoformat()}
            ]
            pod = raw_pod("digits-edge-0-x", phase="Pending", status={"conditions": scheduled})
            stored = await it.server.put(pod)
            it.tables.pods.put(stored)
            told = [("Normal", "Scheduled", 1), ("Warning", "FailedMount", 5), ("Normal", "Pulling", 5)]
            for kind, reason, second in told[: 3 if over else 2]:
                event = child("Event", reason.lower(), type=kind, reason=reason, message=reason)
                event["involvedObject"] = {"uid": stored["metadata"]["uid"]}
                event["lastTimestamp"] = f"2026-01-02T12:00:0{second}Z"
                await it.server.put(event)
            warnings = (await it.look()).observed.warnings
            assert warnings == ({} if over else {"digits-edge-0-x": "FailedMount"})

    run(scenario())


@pytest.mark.parametrize("turns", range(8))
def test_a_job_that_goes_while_it_is_looked_at_is_no_defect(turns: int) -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            look = asyncio.create_task(it.look())
            for _ in range(turns):
                await asyncio.sleep(0)
            it.cluster.forget(KEY)
            await look

    run(scenario())


def test_nodes_are_read_only_where_somebody_dials_one() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.server.put({"kind": "Node", "metadata": {"name": "cloud"}})
            await it.job()
            assert (await it.look(0.0)).observed.nodes is None
            assert it.server.reads("nodes") == []
            await it.job(generation=2, aggregator={"expose": {"type": "NodePort"}})
            nodes = (await it.look(0.0)).observed.nodes
            assert nodes is not None
            assert [node.name for node in nodes] == ["cloud"]
            await it.look(0.0)
            assert len(it.server.reads("nodes")) == 1

    run(scenario())


def test_nodes_that_may_not_be_read_are_none() -> None:
    async def scenario() -> None:
        async with edge() as it:
            it.server.refuse = refusing("GET nodes", 403, "Forbidden")
            await it.job(aggregator={"expose": {"type": "NodePort"}})
            assert (await it.look(0.0)).observed.nodes is None
            assert (await it.look(0.0)).observed.nodes is None
            assert len(it.server.reads("nodes")) == 1, "the refusal is remembered"

    run(scenario())


def test_the_node_of_a_pod_in_doubt_is_read() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.server.put({"kind": "Node", "metadata": {"name": "edge1"}})
            await it.job()
            running = [{"name": "main", "state": {"running": {}}}]
            pod = raw_pod("digits-edge-0-x", status={"containerStatuses": running})
            it.tables.pods.put(await it.server.put(pod))
            nodes = (await it.look()).observed.nodes
            assert nodes is not None
            assert [node.name for node in nodes] == ["edge1"]

    run(scenario())


def test_a_node_in_doubt_is_newer_than_the_list_of_all() -> None:
    def node(name: str, ready: str) -> dict[str, object]:
        return {
            "kind": "Node",
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }

    async def scenario() -> None:
        async with edge() as it:
            for name in ("cloud", "edge1"):
                await it.server.put(node(name, "True"))
            await it.job(aggregator={"expose": {"type": "NodePort"}})
            await it.look(0.0)
            await it.server.put(node("edge1", "Unknown"))
            running = [{"name": "main", "state": {"running": {}}}]
            pod = raw_pod("digits-edge-0-x", status={"containerStatuses": running})
            it.tables.pods.put(await it.server.put(pod))
            nodes = (await it.look(0.0)).observed.nodes
            assert nodes is not None
            found = {view.name: view.ready.status for view in nodes if view.ready is not None}
            assert found == {"cloud": "True", "edge1": "Unknown"}

    run(scenario())


@pytest.mark.parametrize("ticks", range(12))
def test_a_job_that_is_forgotten_while_it_is_looked_at_is_no_failure(ticks: int) -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            loop = asyncio.get_running_loop()

            def later(left: int) -> None:
                if left:
                    loop.call_soon(later, left - 1)
                else:
                    it.cluster.forget(KEY)

            later(ticks)
            assert (await it.look()).observed.complete

    run(scenario())
