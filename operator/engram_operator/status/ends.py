"""Why a pod ended: exit codes, the kernel, the kubelet, drains.

The exit code is the contract of `engram.spec.exit_codes`; the termination message is our process's last word
(of the aggregator with its summary), whose reason tells failures apart that share a code. Words are never
searched for a cause: an image of an older version that names no reason is explained by its code.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from engram.spec.exit_codes import OUT_OF_MEMORY, ExitCode, meaning_of
from engram.spec.last_word import read, reason_of
from engram.spec.names import Reason
from engram.spec.summary import FinalSummary
from engram_operator.model import ContainerView, PodView
from engram_operator.status.conditions import shorten
from engram_operator.status.finding import AGGREGATOR, ANEW, Finding
from engram_operator.status.memory_use import use_of_memory

_MOST_WORDS = 400

_LOST_TRACK = ("ContainerStatusUnknown", "Unknown")
"""Reasons of a container whose end nobody saw: the kubelet's word, and containerd's after a power cut."""
_LOCAL = "; then continue with --resume"
"""What helps on one machine: a job that has failed keeps its uid, and its checkpoint belongs to that."""
_AGAIN = "; Kubernetes tries again within backoffLimit"
_PROMISES = (_AGAIN, "; Kubernetes starts it again", "; Kubernetes tries again")


def without_promise(message: str) -> str:
    """Return a finding's message without the promise that Kubernetes tries again: it does not any more."""
    for promise in _PROMISES:
        message = message.replace(promise, "")
    return message.replace(". If it happens again, ", ": ")


class LastWord(NamedTuple):
    """What a process of ours said at its end."""

    sentence: str
    reason: Reason | None = None
    """None: it named none, or one that does not go with its exit code."""


def last_word(message: str, code: int) -> LastWord:
    """Return what a process that ended with `code` said: in its summary, or on its last line."""
    summary = FinalSummary.decode(message)
    if summary is not None:
        return LastWord(shorten(summary.message, _MOST_WORDS), reason_of(summary.reason, code))
    reason, sentence = read(_last_line(message), code)
    return LastWord(sentence, reason)


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return shorten(lines[-1].removeprefix("engram: "), _MOST_WORDS) if lines else ""


def explain_end(pod: PodView, subject: str) -> Finding:
    """Return why a pod failed."""
    finished = pod.main.finished if pod.main else None
    found = _refused_by_the_node(pod, subject) or _infrastructure(pod, subject)
    if found is not None:
        return found
    main = pod.main
    if main is None:
        words = shorten(pod.message, _MOST_WORDS) or pod.reason or "its pod failed"
        return Finding(_failed(subject), words, subject, finished)
    if main.reason == "OOMKilled" or main.exit_code == OUT_OF_MEMORY:
        sure = "" if main.reason == "OOMKilled" else ", most likely"
        return Finding(
            Reason.OUT_OF_MEMORY,
            f"killed{sure} for memory{use_of_memory(pod)}{_AGAIN}. If it happens again, {ANEW} with more "
            f"{_resources(subject)}.limits.memory or a smaller training.batchSize",
            subject,
            finished,
        )
    if main.reason in ("StartError", "ContainerCannotRun"):
        return unusable_image(main.message, subject, finished) or Finding(
            Reason.CONTAINER_NOT_CREATED,
            f"its container cannot start: {_last_line(main.message)}: {ANEW} with another podTemplate",
            subject,
            finished,
        )
    return _by_exit_code(pod, main, subject)


def unusable_image(message: str, subject: str, since: datetime | None) -> Finding | None:
    """Return the finding for an image that cannot run engram; None: the message speaks of something else."""
    where = "spec.aggregator.image" if subject == AGGREGATOR else "spec.workers[].image"
    if "exec format error" in message:
        return Finding(
            Reason.IMAGE_UNUSABLE,
            f"the image is built for another processor than the node's: {ANEW} with one of its architecture "
            f"in {where}",
            subject,
            since,
        )
    if "executable file not found" in message or (
        "exec" in message and "no such file or directory" in message
    ):
        return Finding(
            Reason.IMAGE_UNUSABLE,
            f"the image has no command engram: {ANEW} with the runtime image, or one built on it, in {where}",
            subject,
            since,
        )
    return None


def _refused_by_the_node(pod: PodView, subject: str) -> Finding | None:
    """The kubelet did not admit the pod."""
    words = shorten(pod.message, 300).rstrip(".") or pod.reason
    if pod.reason == "NodePorts":
        return Finding(
            Reason.PORT_TAKEN,
            f"the port is taken on node {pod.node}: end what holds it, or {ANEW} with another "
            "spec.aggregator.expose.port or nodeName",
            subject,
        )
    if pod.reason == "UnexpectedAdmissionError" or (pod.reason.startswith("OutOf") and "/" in pod.reason):
        return Finding(
            Reason.GPU_NOT_ADMITTED,
            f"node {pod.node} did not admit the pod: {words}; Kubernetes tries again: check the device "
            "plugin",
            subject,
        )
    if pod.reason.startswith("OutOf") or pod.reason in ("NodeAffinity", "UnexpectedAdmission"):
        return Finding(
            Reason.UNSCHEDULABLE,
            f"node {pod.node} did not admit the pod: {words}; Kubernetes tries again",
            subject,
        )
    return None


def _infrastructure(pod: PodView, subject: str) -> Finding | None:
    """What is no failure of the process: drained, evicted, lost from sight."""
    main = pod.main
    disrupted = pod.conditions.get("DisruptionTarget")
    if pod.reason == "NodeLost" or (main is not None and main.reason in _LOST_TRACK):
        return Finding(
            Reason.NODE_OFFLINE,
            f"node {pod.node} went down or out of touch and lost track of the container; that is no failure "
            "of the process",
            subject,
            main.finished if main else None,
        )
    if pod.reason in ("Evicted", "Terminated", "NodeShutdown", "Preempting") or (
        disrupted is not None and disrupted.true
    ):
        words = pod.message or (disrupted.message if disrupted else "") or pod.reason
        return Finding(
            Reason.POD_EVICTED,
            f"node {pod.node} gave up the pod: {shorten(words, 300).rstrip('.')}; Kubernetes starts it again",
            subject,
            disrupted.since if disrupted else None,
        )
    return None


def _by_exit_code(pod: PodView, main: ContainerView, subject: str) -> Finding:
    code, finished = main.exit_code or ExitCode.FAILURE, main.finished
    words, reason = last_word(main.message, code)
    if code == ExitCode.CONFIGURATION:
        said = words.removesuffix(_LOCAL) or meaning_of(code)
        known = reason or Reason.CONFIGURATION_ERROR
        after = _other_port(pod) if known is Reason.PORT_TAKEN else _for_good(subject)
        return Finding(known, f"{said}{after}", subject, finished, final=True)
    if code == ExitCode.DATA:
        mend = "check spec.dataset.volume and path, and that spec.workers[].runAsUser may read it"
        said = words or f"{meaning_of(code)}: {mend}"
        return Finding(Reason.DATA_ERROR, f"{said}{_for_good(subject)}", subject, finished, final=True)
    if code == ExitCode.REFUSED:
        said = words.removeprefix(f"{subject} ") or meaning_of(code)
        return Finding(Reason.WORKER_REFUSED, f"{said}{_for_good(subject)}", subject, finished, final=True)
    if code == ExitCode.RETRY:
        known = reason or (
            Reason.AGGREGATOR_RESTARTING if subject == AGGREGATOR else Reason.WORKER_RESTARTING
        )
        said = f" ({words})" if words else ""
        return Finding(
            known, f"stopped with its state saved{said}; Kubernetes starts it again", subject, finished
        )
    said = f": {words}" if words else f": {meaning_of(code)}"
    return Finding(_failed(subject), f"exit code {code}{said}{_AGAIN}", subject, finished)


def _other_port(pod: PodView) -> str:
    """Return what helps when a process that Kubernetes knows nothing of holds a port of the pod."""
    return (
        f" (with hostNetwork any process of node {pod.node} may hold it); then {ANEW}, or with another "
        "spec.aggregator.nodeName or podTemplate"
    )


def _for_good(subject: str) -> str:
    """Return what follows from a code that nothing is tried again after."""
    return f"; then {ANEW}" if subject == AGGREGATOR else f"; it is not replaced: to have it back, {ANEW}"


def _failed(subject: str) -> Reason:
    return Reason.AGGREGATOR_RESTARTING if subject == AGGREGATOR else Reason.WORKER_FAILED


def _resources(subject: str) -> str:
    return "spec.aggregator.resources" if subject == AGGREGATOR else "spec.workers[].resources"
