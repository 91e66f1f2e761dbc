"""All objects of a job at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from engram.spec.job import FederatedIncrementalJob
from engram_operator.manifests.config import config_map, spec_digest
from engram_operator.manifests.context import Context
from engram_operator.manifests.jobs import aggregation_job, group_job
from engram_operator.manifests.network import network_policy
from engram_operator.manifests.secrets import credentials_secret, worker_tokens_secret
from engram_operator.manifests.service import aggregation_service, node_port_service
from engram_operator.manifests.volumes import checkpoint_claim
from engram_operator.model import Object


@dataclass(frozen=True)
class Children:
    """What a job is made of on a cluster. The report's Job is made at the end and not among them."""

    config_map: Object
    credentials: Object
    """Secret; created once, never overwritten."""
    worker_tokens: Object
    """Secret; grows with a group, before its Job does."""
    service: Object
    node_port: Object | None
    """Second Service, for `expose.type: NodePort`; what `endpoints_of` reads the allocated port from."""
    claim: Object | None
    policy: Object | None
    """NetworkPolicy, where the administrator wants one."""
    aggregation: Object
    workers: Mapping[str, Object]
    """Group name -> batch Job."""

    @property
    def services(self) -> tuple[Object, ...]:
        """Every Service."""
        return (self.service,) if self.node_port is None else (self.service, self.node_port)

    @property
    def jobs(self) -> tuple[Object, ...]:
        """Every batch Job, the aggregator's first."""
        return (self.aggregation, *self.workers.values())

    @property
    def all(self) -> tuple[Object, ...]:
        """Every object, in the order in which pods need them."""
        optional = tuple(item for item in (self.policy, self.claim) if item is not None)
        return (self.config_map, self.credentials, self.worker_tokens, *self.services, *optional, *self.jobs)


def build_children(job: FederatedIncrementalJob, context: Context) -> Children:
    """Return every child of `job`, whose metadata must have name, namespace and uid, and whose checkpoint is
    settled (`with_checkpoint`).

    Raises ConfigurationError (field, problem, remedy) for a podTemplate that cannot be merged or that breaks
    what the operator needs.
    """
    digest = spec_digest(job)
    claim, node_port = checkpoint_claim(job), node_port_service(job)
    policy = network_policy(job, context.settings)
    return Children(
        config_map=_plain(config_map(job, context, digest)),
        credentials=_plain(credentials_secret(job, context)),
        worker_tokens=_plain(worker_tokens_secret(job, context)),
        service=_plain(aggregation_service(job)),
        node_port=None if node_port is None else _plain(node_port),
        claim=None if claim is None else _plain(claim),
        policy=None if policy is None else _plain(policy),
        aggregation=_plain(aggregation_job(job, context, digest)),
        workers={group.name: _plain(group_job(job, group, context, digest)) for group in job.spec.workers},
    )


def _plain(built: Object) -> Object:
    """Return `built` as the API server will read it: exact built-in types, nothing shared with the job."""
    copied: Object = json.loads(json.dumps(built))
    return copied
