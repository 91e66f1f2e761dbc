"""`python -m charts.generate [--check]`: write what is made from the chart and for it, or say what is stale.

The chart is the one source of what the operator is installed with. Made from it are the table in its README
(values.yaml, whose comments are the descriptions) and, by `helm template`, the plain manifests of `deploy/`.
Made for it are its template of the CRD, from the types in engram.spec, and its dashboards, from
charts.dashboards. With `--check` nothing is written, and the exit code is 1 when a file differs from what
would be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from charts.dashboards.fleet import FLEET
from charts.dashboards.grafana import render
from charts.dashboards.job import JOB
from engram.spec.crd import build_crd
from tests.cluster import binaries
from tests.cluster.helm import Helm

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "engram"
TABLE = "<!-- This table is made from values.yaml by `make generate`. -->"
RELEASE, SYSTEM = "engram", "engram-system"
"""Release and namespace that the plain manifests are made for."""
ANY = "any-namespace"
"""Stands for the namespace that `kubectl apply -n` names."""

_NOTE = "Do not edit: made by `make generate`; a test fails when it is stale."
_NAMESPACE = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {SYSTEM}
  labels:
    app.kubernetes.io/part-of: engram
    # The operator needs no privilege on its node, and nothing else belongs into this namespace.
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
---
"""
_OF_HELM = re.compile(
    r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE
)
"""Lines that say who installed an object: true of a release only."""


class Value(NamedTuple):
    """A row of the table of values."""

    key: str
    default: str
    """As JSON; empty for a section."""
    description: str


def render_crd() -> str:
    """Return the chart's template of the CRD, which stays when the release goes, and all jobs with it."""
    crd = build_crd()
    crd["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    text: str = yaml.safe_dump(crd, sort_keys=False, width=110, allow_unicode=True)
    if "{{" in text:
        raise ValueError("a text of the CRD holds {{, which Helm would carry out: write it otherwise")
    note = f"# From the types in engram/spec. {_NOTE}\n"
    return "{{- if .Values.crds.enabled }}\n" + note + text + "{{- end }}\n"


def render_readme() -> str:
    """Return the chart's README: what is written by hand, then the table of values."""
    head, _, _ = (CHART / "README.md").read_text(encoding="utf-8").partition(TABLE)
    rows = (f"| {value.key} | {value.default} | {value.description} |" for value in read_values(CHART))
    return "\n".join([head + TABLE, "", "| value | default | what it is |", "|---|---|---|", *rows, ""])


def render_operator() -> str:
    """Return `deploy/operator.yaml`: the namespace, the service account and the Deployment."""
    head = f"""\
# The operator of engram: its namespace, its identity, and one pod. What it may do is said in
# rbac-cluster.yaml (the whole cluster) or namespaced/rbac.yaml (some namespaces): apply one of them, too.
# {_NOTE}

"""
    return head + _NAMESPACE + _template("serviceaccount", "deployment")


def render_cluster_roles() -> str:
    """Return `deploy/rbac-cluster.yaml`."""
    return f"# {_NOTE}\n\n{_template('rbac')}"


def render_namespaced_roles() -> str:
    """Return `deploy/namespaced/rbac.yaml`, which names no namespace."""
    text = _template("rbac", values={"watchNamespaces": [ANY]})
    head = f"""\
# `kubectl apply --server-side -n NAMESPACE -f deploy/namespaced` for each namespace that is watched. The
# rules are those of rbac-cluster.yaml without nodes: jobs that are exposed by NodePort name their address
# themselves, and status tells from the pods that a node is gone.
# {_NOTE}

"""
    return head + text.replace(f"  namespace: {ANY}\n", "")


def render_user_roles() -> str:
    """Return `deploy/rbac-users.yaml`."""
    return f"# {_NOTE}\n\n{_template('rbac-users')}"


FILES: dict[str, Callable[[], str]] = {
    "charts/engram/templates/crd.yaml": render_crd,
    "charts/engram/README.md": render_readme,
    "charts/engram/dashboards/job.json": partial(render, JOB),
    "charts/engram/dashboards/fleet.json": partial(render, FLEET),
}
MANIFESTS: dict[str, Callable[[], str]] = {
    "deploy/operator.yaml": render_operator,
    "deploy/rbac-cluster.yaml": render_cluster_roles,
    "deploy/rbac-users.yaml": render_user_roles,
    "deploy/namespaced/rbac.yaml": render_namespaced_roles,
}
"""Files that Helm is needed for."""


def _template(*names: str, values: Mapping[str, Any] | None = None) -> str:
    """Return what Helm makes of templates, without what is true of releases only."""
    files = [f"--show-only=templates/{name}.yaml" for name in names]
    text = Helm(CHART, namespace=SYSTEM).text(RELEASE, *files, values=values)
    return _OF_HELM.sub("", text).removeprefix("---\n")


_WHOLE = ("resources", "affinity")
"""Objects of Kubernetes, of which the schema knows the outermost fields: still one value each."""


def read_values(chart: Path) -> Iterator[Value]:
    """Yield the values of a chart in order.

    The comment right above a key describes it. What values.schema.json knows the fields of is a section, and
    its fields follow; anything else is one value.
    """
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))

    def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
        name = part.get("$ref", "").rpartition("/")[2]
        found: Mapping[str, Any] = schema["definitions"][name] if name else part
        return found

    def below(node: Any, data: Any, known: Mapping[str, Any], prefix: str) -> Iterator[Value]:
        for key, value in node.value:
            name = prefix + key.value
            description = _comment(text.splitlines(), key.start_mark.line, key.start_mark.column)
            own = resolved(known[key.value])
            if "properties" in own and name not in _WHOLE:
                yield Value(f"**{name}**", "", description)
                yield from below(value, data[key.value], own["properties"], f"{name}.")
            else:
                yield Value(f"`{name}`", f"`{json.dumps(data[key.value])}`", description)

    yield from below(yaml.compose(text), yaml.safe_load(text), schema["properties"], "")


def _comment(lines: Sequence[str], at: int, column: int) -> str:
    """Return the comment that stands right above a line, as one line."""
    start, mark = at, " " * column + "# "
    while start and lines[start - 1].startswith(mark):
        start -= 1
    return " ".join(line.removeprefix(mark) for line in lines[start:at]).replace("|", "\\|")


def stale_files(files: Mapping[str, Callable[[], str]], root: Path = ROOT) -> dict[str, str]:
    """Return the files below `root` that are missing or not what they should be, with their right text."""
    wanted = {name: render() for name, render in files.items()}
    return {name: text for name, text in wanted.items() if _text(root / name) != text}


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m charts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="where the files are written")
    options = parser.parse_args(arguments)
    files = FILES | MANIFESTS
    if options.check and binaries.lookup("helm") is None:
        print(
            "deploy/ is not checked: Helm is not built yet (tests/chart builds it, and checks)",
            file=sys.stderr,
        )
        files = FILES
    stale = stale_files(files, options.root)
    for name, text in stale.items():
        if options.check:
            print(f"{name} is stale: run `make generate`", file=sys.stderr)
            continue
        path = options.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {name}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
