"""Jobs as the operator leaves them, kubeconfigs, and the plug-in as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from engram.spec.names import Condition, Phase, Reason
from engram_operator.model import Object
from tests.control.builders import job_object

REPORT = {"report.json": "{}\n", "report.md": "# digits\n", "report.html": "<html></html>\n"}


def condition(kind: Condition, status: str, reason: str, message: str = "") -> Object:
    """A condition as it stands in a status."""
    return {
        "type": str(kind),
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T12:00:00Z",
        "observedGeneration": 1,
    }


def running(**status: Any) -> Object:
    """A job in its thirteenth round, with one worker that is cut off."""
    job = job_object()
    job["status"] = {
        "phase": Phase.RUNNING,
        "reason": "Training",
        "message": "Round 13 of 25.",
        "conditions": [
            condition(Condition.ACCEPTED, "True", Reason.VALID),
            condition(Condition.PROGRESSING, "True", "Training", "Round 13 of 25."),
            condition(Condition.DEGRADED, "True", "WorkerDisconnected", "trainworker-edge-1 is silent."),
        ],
        "display": {
            "task": "3/5",
            "round": "13/25",
            "workers": "1/2",
            "accuracy": "93.1%",
            "forgetting": "4.2%",
        },
        "progress": {"percent": 48, "estimatedCompletionTime": "2026-01-02T12:03:20Z"},
        "workers": {"desired": 2, "running": 2, "connected": 1, "disconnected": 1, "failed": 0},
        "workerStatuses": [
            {"name": "trainworker-edge-0", "state": "training", "round": 13, "restarts": 0},
            {
                "name": "trainworker-edge-1",
                "state": "disconnected",
                "reason": "WorkerDisconnected",
                "message": "no sign of life since 11:58",
                "lastSeenTime": "2026-01-02T11:58:00Z",
            },
        ],
        "tasks": [
            {"index": 1, "classes": [2, 8], "accuracy": "0.9710", "accuracyNow": "0.9310", "seconds": 75}
        ],
        **status,
    }
    return job


def ended(phase: Phase = Phase.SUCCEEDED, *, ready: Object | None = None, **status: Any) -> Object:
    """A job that has ended; `ready` is its ReportReady condition."""
    kind = Condition.COMPLETE if phase is Phase.SUCCEEDED else Condition.FAILED
    said = condition(
        kind, "True", "Finished" if phase is Phase.SUCCEEDED else "RunFailed", "All tasks are done."
    )
    job = job_object()
    job["status"] = {
        "phase": phase,
        "reason": said["reason"],
        "message": said["message"],
        "completionTime": "2026-01-02T12:00:00Z",
        "conditions": [said, *([ready] if ready else [])],
        **status,
    }
    return job


def stored_report(message: str = "The report is in ConfigMap digits-report.") -> Object:
    """ReportReady of a report that is in its place."""
    return condition(Condition.REPORT_READY, "True", Reason.REPORT_STORED, message)


def config_map(files: dict[str, str], name: str = "digits-report") -> Object:
    """A ConfigMap of the job."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "lab"},
        "data": files,
    }


def kubeconfig(folder: Path, server: str, **more: Any) -> Path:
    """Write a kubeconfig for a server without a login; its context `lab` is of the namespace lab."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "lab", "context": {"cluster": "fake", "user": "me", "namespace": "lab"}}],
        "current-context": "lab",
        **more,
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def plugin(
    *arguments: str | Path, folder: Path | None = None, seconds: float = 90
) -> subprocess.CompletedProcess[str]:
    """Run `kubectl-engram ARGUMENTS` as a process."""
    command = [sys.executable, "-m", "engram_kubectl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=seconds, check=False)
