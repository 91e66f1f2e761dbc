from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from engram.errors import ConfigurationError
from engram.federation.sampling import Quorum
from engram.federation.settings import Settings
from engram.spec import FederatedIncrementalJob
from engram.spec.parameters import FedAdamParameters


def job(**spec: object) -> FederatedIncrementalJob:
    return FederatedIncrementalJob.model_validate({"metadata": {"name": "job"}, "spec": spec})


def test_settings_of_a_job() -> None:
    made = job(
        seed=5,
        workers=[{"name": "edge", "replicas": 2}, {"name": "cloud", "replicas": 1}],
        aggregation={"name": "fedadam", "parameters": {"beta1": 0.5}, "quorum": "50%", "clientFraction": 0.5},
        evaluation={"location": "workers", "every": "round"},
    )
    settings = Settings.from_job(made, [3, 4])
    assert settings.job_digest == made.digest()
    assert settings.workers == ("trainworker-edge-0", "trainworker-edge-1", "trainworker-cloud-0")
    assert settings.rounds == (3, 4)
    assert settings.aggregation_parameters == FedAdamParameters(beta1=0.5)
    assert settings.heartbeat_seconds == 10.0
    assert not settings.elastic
    plan = settings.plan()
    assert plan.seed == 5
    assert plan.quorum == Quorum(share=0.5)
    assert (plan.client_fraction, plan.deadline_seconds, plan.deadline_policy) == (0.5, 600.0, "Wait")
    assert (plan.evaluate_on_workers, plan.evaluate_every_round) == (True, True)


def test_stragglers_and_asynchronous_rounds_are_part_of_the_plan() -> None:
    late = Settings.from_job(job(aggregation={"quorum": "50%", "stragglerFactor": 2}), [1])
    assert late.plan().straggler_factor == 2
    assert replace(late, take_turns=True).plan().straggler_factor is None
    plan = Settings.from_job(job(aggregation={"buffer": {"size": 2, "maxStaleness": 4}}), [1]).plan()
    assert (plan.buffer, plan.max_staleness) == (2, 4)
    plan = Settings.from_job(job(), [1]).plan()
    assert (plan.straggler_factor, plan.buffer) == (None, 0)


@pytest.mark.parametrize("compression", ["none", "float16", "int8", "topk"])
def test_the_job_knows_which_compression_owes_something(compression: str) -> None:
    settings = Settings.from_job(job(aggregation={"compression": compression}), [1])
    assert settings.aggregation.owes == (settings.method is not None and settings.method.feeds_back)


def test_parameters_of_an_aggregation_are_checked() -> None:
    with pytest.raises(ConfigurationError):
        Settings.from_job(job(aggregation={"name": "krum", "parameters": {"byzantin": 1}}), [1])


def test_only_groups_of_a_local_partition_may_grow() -> None:
    fixed = Settings.from_job(job(), [1])
    elastic = Settings.from_job(job(dataset={"partition": {"method": "local"}}), [1])
    assert fixed.may_join("trainworker-edge-2")
    assert not fixed.may_join("trainworker-edge-3")
    assert elastic.may_join("trainworker-edge-3")
    for name in ("trainworker-cloud-0", "trainworker-edge-03", "trainworker-edge-", "edge-1", ""):
        assert not elastic.may_join(name)


def test_the_federation_is_imported_without_torch() -> None:
    code = (
        "import sys, engram.federation.aggregator, engram.federation.inprocess;"
        "import engram.federation.websocket.client, engram.federation.websocket.server;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
