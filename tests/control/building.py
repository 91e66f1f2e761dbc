"""Jobs and contexts for the tests of the builders: from YAML text below `spec:`, and from the examples."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from engram.spec import FederatedIncrementalJob, load_job, load_yaml, parse_job
from engram_operator.manifests import Children, Context, build_children, endpoints_of
from engram_operator.model import Credentials, NodeView, Object
from engram_operator.settings import Settings

ROOT = Path(__file__).parents[2]
UID = "0b5cf2a8-6d9e-4a0b-9a55-1f2d3c4b5a69"
CREDENTIALS = Credentials(key="00" * 32, ca="CA PEM\n", certificate="CERT PEM\n", private_key="KEY PEM\n")
SETTINGS = Settings(image="runtime:1")
NODES = (NodeView("cloud", edge=False, internal_ip="192.0.2.10", ready=None),)

HEAD = {"apiVersion": "engram.dev/v1alpha1", "kind": "FederatedIncrementalJob"}


def make_job(spec: str = "", name: str = "digits", namespace: str = "lab") -> FederatedIncrementalJob:
    """Return the job whose spec is the YAML text `spec`, as the API server would send it."""
    content = load_yaml(textwrap.dedent(spec), "spec") if spec.strip() else {}
    metadata = {"name": name, "namespace": namespace, "uid": UID}
    return parse_job({**HEAD, "metadata": metadata, "spec": content})


def example(file: str) -> FederatedIncrementalJob:
    """Return the job of an example as the API server would send it."""
    job = load_job(ROOT / "examples" / file)
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": UID})})


def make_context(job: FederatedIncrementalJob, settings: Settings = SETTINGS) -> Context:
    """Return a context with fixed credentials; where node ports need an address there is one node."""
    nodes = NODES if job.spec.aggregator.expose.type == "NodePort" else None
    return Context(settings, CREDENTIALS, endpoints_of(job, None, nodes, settings))


def build(job: FederatedIncrementalJob, settings: Settings = SETTINGS) -> Children:
    """Return the job's children."""
    return build_children(job, make_context(job, settings))


def pod_of(job: Object) -> Object:
    """Return the pod spec of a batch Job."""
    spec: Object = job["spec"]["template"]["spec"]
    return spec


def main_of(job: Object) -> Object:
    """Return the main container of a batch Job."""
    (main,) = (item for item in pod_of(job)["containers"] if item["name"] == "main")
    found: Object = main
    return found


def environment_of(job: Object) -> dict[str, Any]:
    """Return the main container's environment: name -> value, or the whole entry without one."""
    return {entry["name"]: entry.get("value", entry) for entry in main_of(job)["env"]}


def mounts_of(job: Object) -> dict[str, Object]:
    """Return path -> mount of the main container."""
    return {mount["mountPath"]: mount for mount in main_of(job)["volumeMounts"]}


def volumes_of(job: Object) -> dict[str, Object]:
    """Return name -> source of a batch Job's volumes."""
    return {
        volume["name"]: {key: value for key, value in volume.items() if key != "name"}
        for volume in pod_of(job)["volumes"]
    }


def canonical(value: object) -> str:
    """Return text that two equal objects share."""
    return json.dumps(value, sort_keys=True)
