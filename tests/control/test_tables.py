from __future__ import annotations

from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.spec import parse_job
from engram.spec.nesting import DEEPEST, too_deep
from engram_operator.model import Object
from engram_operator.tables import JobTable, compact
from tests.control.builders import job_object
from tests.control.edge import KEY


def nested(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth // 2):
        value = {"a": [value]}
    return value


def kept(job: Object) -> Object:
    table = JobTable()
    assert table.put(job)
    found = table.get(KEY)
    assert found is not None
    return found


@pytest.mark.parametrize("depth", [600, 1_500, 9_990])
def test_a_job_nested_without_end_is_kept_as_far_as_to_be_refused(depth: int) -> None:
    job = kept(job_object(aggregator={}) | {"spec": {"aggregator": {"podTemplate": nested(depth)}}})
    assert too_deep(job) is not None
    with pytest.raises(ConfigurationError, match=r"spec\.aggregator\.podTemplate\.a: nested too deeply"):
        parse_job(job)


def test_what_a_job_may_nest_is_kept_whole() -> None:
    value = nested(DEEPEST)
    assert too_deep(value) is None
    assert compact(value) == value


def test_what_only_the_api_server_needs_is_dropped() -> None:
    job = job_object()
    job["metadata"] |= {
        "managedFields": [{"fieldsV1": nested(9_990)}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"},
    }
    assert kept(job)["metadata"] == job_object()["metadata"] | {"annotations": {"mine": "1"}}
