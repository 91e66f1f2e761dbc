"""Names of a job's children, one function each: `<job>-<suffix>`, so that any name can be worked out.

Group names hold no hyphen and are none of the suffixes, so no two children of one kind share a name.
"""

from __future__ import annotations

from engram.spec.names import Child


def aggregation_name(job: str) -> str:
    """Return the name of the aggregation Job, and of the Service in front of it."""
    return f"{job}-{Child.AGGREGATION}"


def node_port_name(job: str) -> str:
    """Return the name of the Service that opens a node port (`expose.type: NodePort` only)."""
    return f"{job}-{Child.NODE_PORT}"


def group_name(job: str, group: str) -> str:
    """Return the name of the Indexed Job of a worker group."""
    return f"{job}-{group}"


def spec_name(job: str) -> str:
    """Return the name of the ConfigMap with the resolved spec, the endpoints and the CA."""
    return f"{job}-{Child.SPEC}"


def credentials_name(job: str) -> str:
    """Return the name of the Secret with K and the server's certificate."""
    return f"{job}-{Child.CREDENTIALS}"


def worker_tokens_name(job: str) -> str:
    """Return the name of the Secret with one token a worker."""
    return f"{job}-{Child.WORKER_TOKENS}"


def checkpoint_name(job: str) -> str:
    """Return the name of the PersistentVolumeClaim for the checkpoint."""
    return f"{job}-{Child.CHECKPOINT}"


def report_name(job: str) -> str:
    """Return the name of the report Job and of the ConfigMap with its result."""
    return f"{job}-{Child.REPORT}"
