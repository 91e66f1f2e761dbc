"""`engram check JOB.YAML`: everything that is looked at, in one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engram.errors import ConfigurationError
from engram.spec import load_job
from engram.spec.job import FederatedIncrementalJob
from engram.spec.loader import load_yaml
from engram.spec.names import KIND, OPERATOR
from engram_kubectl import terminal
from engram_kubectl.check import dry_run, findings, installed, network, quota, storage
from engram_kubectl.check.facts import Facts, gather, secrets_named
from engram_kubectl.check.findings import Found, fail, ok, warn
from engram_kubectl.check.nodes import Node, check_nodes
from engram_kubectl.check.pods import pod_sets
from engram_kubectl.connection import Cluster, Target, connected
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.manifests import Context, build_children, with_checkpoint
from engram_operator.model import Credentials
from engram_operator.settings import Settings

NO_UID = "00000000-0000-0000-0000-000000000000"
"""Of the job that does not exist yet."""
ENDPOINT = "192.0.2.1:7363"
"""Stands for the aggregator's address where that is not known before the job starts."""
PLACEHOLDERS = Credentials(key="00" * 32, ca="ca\n", certificate="certificate\n", private_key="key\n")
"""Nobody judges what is in a Secret, and what is made here is kept nowhere."""


async def check(target: Target, path: Path) -> int:
    """Print the table of one job file; return 1 when anything would keep the job from running."""
    job, document = _read(path)
    async with connected(target) as cluster:
        written = str((document.get("metadata") or {}).get("namespace") or "")
        namespace = target.namespace or written or cluster.namespace
        if target.namespace and written and written != target.namespace:
            raise ConfigurationError(
                f"is {written}, not {target.namespace}",
                field="metadata.namespace",
                file=str(path),
                remedy="leave --namespace out, or correct one of them",
            )
        found = await look(cluster, job, document, namespace)
    terminal.show(findings.table(found))
    print(f"\n{job.name} in namespace {namespace} of {cluster.context}: {findings.summary(found)}")
    return findings.exit_code(found)


def _read(path: Path) -> tuple[FederatedIncrementalJob, dict[str, Any]]:
    """Return the job of a file, and the file as it was written: defaults are the API server's to add."""
    job = load_job(path)
    document: dict[str, Any] = load_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    return job, document


async def look(
    cluster: Cluster, job: FederatedIncrementalJob, document: dict[str, Any], namespace: str
) -> list[Found]:
    """Return everything that was found, in the order in which things would go wrong."""
    facts = await gather(cluster, namespace)
    found = [
        installed.check_kubernetes(facts.version),
        await installed.check_crd(cluster),
        *installed.check_operator(facts.operators, namespace),
        quota.check_namespace(facts, namespace),
    ]
    if facts.namespace_missing:
        return found
    settings = settings_in_use(facts, namespace)
    placed = job.model_copy(
        update={"metadata": job.metadata.model_copy(update={"namespace": namespace, "uid": NO_UID})}
    )
    placed = with_checkpoint(placed, settings.checkpoint_size, settings.checkpoint_storage_class)
    found += [await dry_run.check_job(cluster, document, namespace), *await _taken(cluster, job, namespace)]
    return found + await _parts(
        cluster, placed, facts, settings, exists=found[-1].level is not findings.Level.OK
    )


async def _parts(
    cluster: Cluster, job: FederatedIncrementalJob, facts: Facts, settings: Settings, *, exists: bool
) -> list[Found]:
    """Return what is found of the job's nodes, network, volumes, images and objects."""
    nodes = None if facts.nodes is None else [Node.of(node, facts.pods) for node in facts.nodes]
    endpoint = network.check_endpoint(job, facts, settings)
    try:
        children = build_children(job, Context(settings, PLACEHOLDERS, (ENDPOINT,)))
    except ConfigurationError as error:
        return [endpoint, fail("job", f"{error.field}: {error.problem}", error.remedy)]
    sets = pod_sets(children)
    names = storage.secret_names(sets, children)
    facts = replace(facts, secrets=await secrets_named(cluster, job.metadata.namespace, names))
    return [
        *check_nodes(sets, nodes),
        endpoint,
        *network.check_port(job, facts),
        *network.check_edge(job, nodes),
        network.check_dns(job, facts, settings),
        *storage.check_volumes(sets, children, facts),
        storage.check_checkpoint(job, facts),
        *storage.check_worker_state(job),
        *storage.check_images(sets, nodes),
        *storage.check_pull_secrets(sets, facts),
        *quota.check_quota(sets, facts),
        *([] if exists else await dry_run.check_objects(cluster, children)),
        *await dry_run.check_pods(cluster, sets, job.metadata.namespace, job.name),
    ]


async def _taken(cluster: Cluster, job: FederatedIncrementalJob, namespace: str) -> list[Found]:
    """Say whether there is such a job already, and whether our operator will look at this one."""
    if job.spec.managed_by != OPERATOR:
        return [warn("managedBy", f"{job.spec.managed_by}: engram's operator keeps its hands off this job")]
    try:
        there = await cluster.api.request("GET", path_of(KIND, namespace, job.name))
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return [ok("name", f"{job.name} is free")]
    phase = (there.get("status") or {}).get("phase") or "Pending"
    return [
        warn(
            "name",
            f"a job {job.name} is there already ({phase}): its objects are not tried",
            "delete it first, or rename this one, to start anew",
        )
    ]


def settings_in_use(facts: Facts, namespace: str) -> Settings:
    """Return the settings of the operator that watches the namespace, as far as they are known."""
    for operator in facts.operators or ():
        settings = installed.settings_of(operator)
        if settings is not None and (not settings.namespaces or namespace in settings.namespaces):
            return replace(settings, in_cluster=True)
    return Settings()
