"""The two Secrets of a job: what the aggregator proves itself with, and one token for each worker."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Role, worker_name
from engram.spec.tokens import worker_token
from engram_operator.manifests.context import Context
from engram_operator.manifests.labels import metadata
from engram_operator.manifests.names import credentials_name, worker_tokens_name
from engram_operator.model import Object


def credentials_secret(job: FederatedIncrementalJob, context: Context) -> Object:
    """Return the Secret with K, the CA's certificate and the server's; to be created once."""
    return _secret(job, credentials_name(job.name), Role.AGGREGATOR, context.credentials.data())


def worker_tokens_secret(job: FederatedIncrementalJob, context: Context) -> Object:
    """Return the Secret with one entry a worker.

    It must be applied before a group grows: kubelet mounts an empty directory for an entry that is missing.
    """
    key, uid = bytes.fromhex(context.credentials.key), job.metadata.uid
    names = [
        worker_name(group.name, index)
        for group in job.spec.workers
        for index in range(max(group.replicas, context.replicas_of(group)))
    ]
    tokens = {name: worker_token(key, uid, name) for name in names}
    return _secret(job, worker_tokens_name(job.name), Role.WORKER, tokens)


def _secret(job: FederatedIncrementalJob, name: str, role: Role, content: Mapping[str, str]) -> Object:
    """Return a Secret; `data`, because server-side apply cannot remove an entry of `stringData`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, name, role),
        "type": "Opaque",
        "data": {key: b64encode(value.encode()).decode("ascii") for key, value in content.items()},
    }
