from __future__ import annotations

import pytest

from engram_operator.errors import ApiError, OperatorError, StaleError
from engram_operator.model import Note, Patch, Plan, Removal
from tests.control.builders import CREDENTIALS, NOW, UID, job_object
from tests.control.edge import KEY, batch_job, child, edge, refusing, run, secret


def full_plan() -> Plan:
    return Plan(
        apply=(child("ConfigMap", "digits-spec"), child("Service", "digits-aggregation")),
        create=(
            child("Secret", "digits-credentials"),
            child("Secret", "digits-worker-tokens"),
            batch_job("digits-aggregation"),
            batch_job("digits-edge"),
        ),
        status={"phase": "Starting", "conditions": [{"type": "Accepted", "reason": "Valid"}]},
        notes=(Note("Normal", "Valid", "all is well"),),
    )


class TestCarryOut:
    def test_writes_come_in_the_order_in_which_a_crash_does_no_harm(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.carry_out(full_plan())
                writes = it.server.writes()
                assert writes[:2] == ["POST secrets", "POST secrets"]
                assert set(writes[2:4]) == {
                    "PATCH configmaps/digits-spec",
                    "PATCH services/digits-aggregation",
                }
                assert writes[4:6] == ["POST jobs", "POST jobs"]
                assert writes[6:] == ["PATCH federatedincrementaljobs/digits/status", "POST events"]
                assert {asked.query.get("fieldManager") for asked in it.server.asked} == {
                    "engram.dev/operator"
                }

        run(scenario())

    def test_nothing_follows_a_secret_that_another_has_made(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.server.put(secret(CREDENTIALS.data()))
                with pytest.raises(StaleError):
                    await it.carry_out(full_plan())
                assert it.server.writes() == ["POST secrets"]
                assert (await it.look()).credentials == CREDENTIALS

        run(scenario())

    def test_a_job_of_ours_that_exists_already_is_no_error_and_is_seen(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.server.put(batch_job("digits-edge"))
                await it.carry_out(Plan(create=(batch_job("digits-edge"),)))
                assert set(it.tables.jobs.of(KEY, UID)) == {"digits-edge"}

        run(scenario())

    def test_a_foreign_job_without_our_label_is_found_out(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.look()
                theirs = {"kind": "Job", "metadata": {"name": "digits-edge", "namespace": "lab"}}
                await it.server.put(theirs)
                with pytest.raises(StaleError):
                    await it.carry_out(Plan(create=(batch_job("digits-edge"),), status={"phase": "Starting"}))
                assert (await it.look()).observed.foreign == ("Job/digits-edge",)
                await it.server.delete("Job", "lab", "digits-edge")
                it.cluster.distrust(KEY)
                assert (await it.look()).observed.foreign == ()

        run(scenario())

    def test_made_jobs_are_seen_before_the_watch_tells(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.carry_out(Plan(create=(batch_job("digits-edge"),)))
                assert set(it.tables.jobs.of(KEY, UID)) == {"digits-edge"}

        run(scenario())

    def test_a_failure_does_not_keep_the_rest_from_being_tried(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                for name in ("digits-aggregation", "digits-edge"):
                    it.tables.jobs.put(await it.server.put(batch_job(name)))
                it.server.refuse = refusing("PATCH jobs/digits-edge", 503, "Down")
                patches = tuple(
                    Patch("Job", name, {"spec": {"suspend": True}})
                    for name in ("digits-edge", "digits-aggregation")
                )
                with pytest.raises(ApiError, match="Down"):
                    await it.carry_out(Plan(patch=patches, status={"phase": "Suspended"}))
                assert it.tables.jobs.of(KEY, UID)["digits-aggregation"].suspend
                assert "status" not in it.stored, "status says nothing that is not so"

        run(scenario())

    def test_jobs_are_not_made_before_what_they_mount(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                it.server.refuse = refusing("PATCH configmaps/digits-spec", 500, "InternalError")
                with pytest.raises(ApiError):
                    await it.carry_out(full_plan())
                assert "POST jobs" not in it.server.writes()

        run(scenario())

    def test_a_refusal_reaches_status_at_the_next_look(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.look()
                message = "exceeded quota: count/jobs.batch=1"
                it.server.refuse = refusing("POST jobs digits-edge", 403, "Forbidden", message)
                plan = Plan(create=(batch_job("digits-edge"),), status={"phase": "Starting"})
                with pytest.raises(ApiError):
                    await it.carry_out(plan)
                assert "status" not in it.stored
                observed = (await it.look()).observed
                assert observed.refusals == {"digits-edge": message}
                assert observed.complete, "after a failure children are read again"
                with pytest.raises(ApiError):
                    await it.carry_out(Plan(create=plan.create, status={"phase": "Pending"}), observed)
                assert it.stored["status"] == {"phase": "Pending"}
                it.server.refuse = lambda asked: None
                await it.carry_out(plan, observed)
                assert (await it.look()).observed.refusals == {}

        run(scenario())

    def test_an_edited_spec_forgets_what_was_refused(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.look()
                it.server.refuse = refusing("POST jobs digits-edge", 422, "Invalid", "bad image")
                with pytest.raises(ApiError):
                    await it.carry_out(Plan(create=(batch_job("digits-edge"),)))
                await it.job(generation=2)
                assert (await it.look()).observed.refusals == {}

        run(scenario())

    def test_a_namespace_that_is_going_is_seen(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                it.server.refuse = refusing(
                    "POST jobs digits-edge", 403, "Forbidden", "being terminated", ("NamespaceTerminating",)
                )
                with pytest.raises(ApiError):
                    await it.carry_out(Plan(create=(batch_job("digits-edge"),)))
                assert (await it.look()).observed.namespace_terminating

        run(scenario())

    def test_removals_name_the_very_object_and_what_is_gone_is_fine(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                stored = await it.server.put(batch_job("digits-edge"))
                uid = stored["metadata"]["uid"]
                await it.carry_out(Plan(delete=(Removal("Job", "digits-edge", "another"),)))
                assert ("jobs", "lab", "digits-edge") in it.server.objects
                plan = Plan(delete=(Removal("Job", "digits-edge", uid), Removal("Job", "digits-gone", "x")))
                await it.carry_out(plan)
                assert ("jobs", "lab", "digits-edge") not in it.server.objects
                assert it.server.asked[-1].body["propagationPolicy"] == "Background"

        run(scenario())

    def test_a_patch_of_what_is_gone_is_left(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.carry_out(Plan(patch=(Patch("Job", "digits-edge", {"spec": {"suspend": True}}),)))

        run(scenario())


class TestStatus:
    def test_fields_that_are_gone_vanish_and_nothing_else_is_sent(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.carry_out(
                    Plan(status={"phase": "Starting", "display": {"task": "1/5", "round": "1"}})
                )
                await it.carry_out(Plan(status={"phase": "Starting", "display": {"task": "2/5"}}))
                stored = it.server.find("FederatedIncrementalJob", "lab", "digits")
                assert stored["status"] == {"phase": "Starting", "display": {"task": "2/5"}}
                assert it.server.asked[-1].body["status"] == {"display": {"task": "2/5", "round": None}}
                assert it.stored["status"] == stored["status"]

        run(scenario())

    def test_an_unchanged_status_is_not_written(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.carry_out(Plan(status={"phase": "Starting"}))
                await it.carry_out(Plan(status={"phase": "Starting"}))
                assert len(it.server.writes()) == 1

        run(scenario())

    def test_a_job_that_has_changed_is_read_before_the_next_try(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.server.put({**job_object(), "status": {"phase": "Running", "old": "x"}})
                with pytest.raises(StaleError):
                    await it.carry_out(Plan(status={"phase": "Starting"}))
                assert it.stored["status"]["old"] == "x"
                await it.carry_out(Plan(status={"phase": "Starting"}))
                stored = it.server.find("FederatedIncrementalJob", "lab", "digits")
                assert stored["status"] == {"phase": "Starting"}

        run(scenario())

    def test_a_job_that_is_gone_is_no_error(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                await it.server.delete("FederatedIncrementalJob", "lab", "digits")
                await it.carry_out(Plan(status={"phase": "Starting"}))

        run(scenario())


class TestEvents:
    def test_writing_a_transition_twice_is_one_event(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                status = {
                    "conditions": [{"type": "Degraded", "reason": "OutOfMemory", "lastTransitionTime": "t1"}]
                }
                note = Note("Warning", "OutOfMemory", "worker 1 needs more than 1Gi")
                for _ in range(2):
                    await it.cluster.write_event(it.stored, note, status)
                events = [item for (plural, _, _), item in it.server.objects.items() if plural == "events"]
                assert len(events) == 1
                (event,) = events
                assert event["involvedObject"]["uid"] == UID
                assert event["type"] == "Warning"
                assert event["lastTimestamp"] == NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
                status["conditions"][0]["lastTransitionTime"] = "t2"
                await it.cluster.write_event(it.stored, note, status)
                assert sum(plural == "events" for plural, _, _ in it.server.objects) == 2

        run(scenario())

    def test_an_event_that_cannot_be_written_is_no_failure(self) -> None:
        async def scenario() -> None:
            async with edge() as it:
                await it.job()
                it.server.refuse = refusing("POST events", 403, "Forbidden")
                await it.carry_out(Plan(notes=(Note("Normal", "Valid", "fine"),)))

        run(scenario())


def test_a_server_that_is_gone_is_an_error_of_ours() -> None:
    async def scenario() -> None:
        async with edge() as it:
            await it.job()
            await it.server.__aexit__(None, None, None)
            with pytest.raises(OperatorError) as found:
                await it.look()
            assert isinstance(found.value, ApiError)
            assert found.value.reason == "Unreachable"
            assert not found.value.refusal

    run(scenario())
