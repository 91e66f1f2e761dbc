"""Reasons of conditions and Events, each with the line of the user guide that explains it.

A reason is what `kubectl get fij -o wide` shows and what alerts match on, so it never changes its spelling.
`docs/reference/reasons.md` is generated from here.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a condition is as it is. `conditions` names the condition types that carry it."""

    meaning: str
    """What happened and what to do, in one line."""
    conditions: tuple[str, ...]

    def __new__(cls, value: str, conditions: str = "", meaning: str = "") -> Reason:
        """Make a member that is the string `value` and knows its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.conditions = tuple(conditions.split())
        member.meaning = meaning
        return member

    # The job is looked at
    VALID = "Valid", "Accepted", "The job is valid; its objects are being made."
    INVALID_SPEC = (
        "InvalidSpec",
        "Accepted Degraded Progressing Failed Ready Reconciling Stalled",
        "A field is wrong; the message names it and says what to write instead.",
    )
    NAME_CONFLICT = (
        "NameConflict",
        "Accepted Degraded Progressing Ready Reconciling Stalled",
        "An object with a name that the job needs exists and is not the job's; it is left alone. Rename "
        "the job or remove the object.",
    )
    ENDPOINT_UNKNOWN = (
        "EndpointUnknown",
        "Accepted Progressing Ready Reconciling Stalled",
        "No address for edge workers can be worked out; set spec.aggregator.expose.address.",
    )
    NAMESPACE_TERMINATING = (
        "NamespaceTerminating",
        "Accepted Degraded Progressing Ready Reconciling Stalled",
        "The namespace is being deleted and takes no new objects; apply the job in another namespace.",
    )
    CRD_OUTDATED = (
        "CRDOutdated",
        "Accepted",
        "The installed CustomResourceDefinition is of an older version and drops fields that it does not "
        "know; apply the files of crds/ of the operator's version.",
    )
    CHECKPOINT_NOT_DURABLE = (
        "CheckpointNotDurable",
        "Accepted Suspended",
        "The checkpoint lies in an emptyDir and dies with the pod: a lost aggregator starts again from "
        "round 1, and suspend is refused. Set spec.aggregator.checkpoint.volume or size.",
    )
    WORKER_STATE_NOT_DURABLE = (
        "WorkerStateNotDurable",
        "Accepted",
        "compression int8 or topk, and what workers owe dies with their pods: the run stays valid, but a "
        "replaced worker changes its bits. Set spec.workers[].state.volume.",
    )
    SPEC_CHANGE_IGNORED = (
        "SpecChangeIgnored",
        "Accepted",
        "A part that cannot change while the job runs was edited; the run goes on with what it started with.",
    )
    SCALE_REFUSED = (
        "ScaleRefused",
        "Accepted",
        "More replicas than at the start: the split is computed over the workers at the start. Only "
        "partition.method local grows.",
    )

    # It comes up
    WAITING_FOR_AGGREGATOR = (
        "WaitingForAggregator",
        "Progressing WorkersReady Ready Reconciling",
        "The aggregator's pod is not running yet.",
    )
    WAITING_FOR_WORKERS = (
        "WaitingForWorkers",
        "Progressing WorkersReady Ready Reconciling",
        "Some workers have not connected yet; status.workerStatuses names them.",
    )
    ALL_CONNECTED = "AllConnected", "WorkersReady", "Every worker is connected to the aggregator."
    TRAINING = "Training", "Progressing Reconciling Ready", "Rounds are running."
    CONSOLIDATING = (
        "Consolidating",
        "Progressing Reconciling Ready",
        "A task has ended; workers choose exemplars and send what the algorithm keeps of it.",
    )
    AS_EXPECTED = "AsExpected", "Degraded Stalled Suspended", "Nothing is wrong."

    # Something is wrong, and the run goes on
    QUORUM_NOT_REACHED = (
        "QuorumNotReached",
        "Degraded Progressing WorkersReady Failed Ready Reconciling Stalled",
        "Fewer updates than aggregation.quorum at the round's deadline: with deadlinePolicy Wait the round "
        "waits, with Fail the job fails.",
    )
    ROUND_DEGRADED = (
        "RoundDegraded",
        "Degraded",
        "A round was closed by its deadline with the quorum, without some workers.",
    )
    WORKER_DISCONNECTED = (
        "WorkerDisconnected",
        "Degraded WorkersReady",
        "A worker has sent no sign of life for three heartbeats; it may still be training.",
    )
    WORKER_FAILED = (
        "WorkerFailed",
        "Degraded Progressing WorkersReady Stalled",
        "A worker's pod failed; the message holds its last line. Kubernetes replaces it within the "
        "backoff limit.",
    )
    WORKER_REFUSED = (
        "WorkerRefused",
        "Degraded WorkersReady Stalled",
        "The aggregator refused a worker: its token, version, job or data split differs. The message says"
        " which.",
    )
    UPDATES_REJECTED = (
        "UpdatesRejected",
        "Degraded",
        "A worker's update was rejected (shape, non-finite, norm, too-large, protocol) and does not count; "
        "the message says which and what to do.",
    )
    NODE_OFFLINE = (
        "NodeOffline",
        "Degraded Progressing WorkersReady Stalled",
        "The node of a worker is not in touch with the cluster; the worker keeps training and is not "
        "replaced.",
    )
    DELETION_WAITS = (
        "DeletionWaits",
        "Degraded",
        "The job is deleted, and pods of it stay on a node that is out of touch until that is back or gone.",
    )
    AGGREGATOR_RESTARTING = (
        "AggregatorRestarting",
        "Degraded Progressing",
        "The aggregator's pod was lost; a new one continues from the checkpoint and workers reconnect.",
    )
    AGGREGATOR_NODE_LOST = (
        "AggregatorNodeLost",
        "Degraded Progressing Stalled",
        "The aggregator's node is gone and its pod stays Terminating. Delete the node, or taint it "
        "node.kubernetes.io/out-of-service.",
    )
    AGGREGATOR_UNREACHABLE = (
        "AggregatorUnreachable",
        "Degraded WorkersReady",
        "A worker cannot reach the aggregator; the message says whether name, TCP, TLS or token failed.",
    )
    CREDENTIALS_LOST = (
        "CredentialsLost",
        "Degraded Progressing Stalled",
        "The job's Secret was deleted; running pods go on. It is made anew when you suspend and resume.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "Degraded Progressing Stalled",
        "No node takes a pod; the message holds the scheduler's words.",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "Degraded Progressing Stalled",
        "An image cannot be pulled: check its name, the registry and spec.imagePullSecrets.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "Degraded Progressing Stalled",
        "A ResourceQuota refused a pod: ask for less or raise the quota.",
    )
    POD_SECURITY_VIOLATION = (
        "PodSecurityViolation",
        "Degraded Progressing Stalled",
        "The namespace's Pod Security level refused a pod; the message names the field and the way out.",
    )
    POD_REFUSED = (
        "PodRefused",
        "Degraded Progressing Stalled",
        "The API server or an admission webhook refused a pod or another object of the job; the message "
        "holds its words.",
    )
    PORT_TAKEN = (
        "PortTaken",
        "Failed Degraded Progressing WorkersReady Ready Reconciling Stalled",
        "A port that the aggregator needs is taken by another pod, a Service or a process of the node; end "
        "it, or write another expose.port or nodeName.",
    )
    IMAGE_UNUSABLE = (
        "ImageUnusable",
        "Degraded Progressing Stalled",
        "An image starts no engram: it lacks the command, or is built for another processor. Use the "
        "runtime image, or one built on it.",
    )
    CONTAINER_NOT_CREATED = (
        "ContainerNotCreated",
        "Degraded Progressing Stalled",
        "The kubelet cannot create a container: a Secret, a ConfigMap or a setting of its pod template is "
        "wrong; the message holds its words.",
    )
    MOUNT_FAILED = (
        "MountFailed",
        "Degraded Progressing Stalled",
        "A volume of a pod cannot be mounted: the claim, path, Secret or ConfigMap that the job names is "
        "missing.",
    )
    POD_EVICTED = (
        "PodEvicted",
        "Degraded Progressing WorkersReady Stalled",
        "A node was drained or ran short and gave up a pod; Kubernetes starts it again, at no cost of its "
        "tries.",
    )
    WORKER_RESTARTING = (
        "WorkerRestarting",
        "Degraded Progressing WorkersReady",
        "A worker was told to stop and saved its state (exit code 75); Kubernetes starts it again.",
    )
    GPU_NOT_ADMITTED = (
        "GPUNotAdmitted",
        "Degraded Progressing Stalled WorkersReady",
        "The kubelet did not admit a GPU pod (UnexpectedAdmissionError); it is tried again.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Degraded Progressing WorkersReady Failed Ready Reconciling Stalled",
        "A container was killed for memory; raise resources.limits.memory or lower batchSize.",
    )
    CHECKPOINT_FAILED = (
        "CheckpointFailed",
        "Degraded Progressing WorkersReady Failed Ready Reconciling Stalled",
        "The checkpoint cannot be written (disk full) or read; the one before is kept. Make room, then "
        "delete the job and apply it anew.",
    )

    # It rests
    SUSPENDED = (
        "Suspended",
        "Suspended Progressing WorkersReady Ready Reconciling",
        "spec.suspend is true: pods are gone, the checkpoint is kept.",
    )
    RESUMED = "Resumed", "Suspended", "spec.suspend is false again: the run continues at the same round."

    # It ends
    FINISHED = "Finished", "Complete Progressing WorkersReady Ready Reconciling", "All tasks are done."
    CONFIGURATION_ERROR = (
        "ConfigurationError",
        "Failed Degraded Progressing WorkersReady Ready Reconciling Stalled",
        "A pod ended with exit code 42: the message holds its last line, which says what to write.",
    )
    DATA_ERROR = (
        "DataError",
        "Failed Degraded Progressing WorkersReady Ready Reconciling Stalled",
        "Data are missing, unreadable or corrupt (exit code 43): check volume, path and "
        "spec.workers[].runAsUser.",
    )
    NUMERICAL_ERROR = (
        "NumericalError",
        "Failed Degraded Progressing WorkersReady Ready Reconciling Stalled",
        "A loss or an update is not finite; lower the learning rate or set training.gradientClip.",
    )
    BACKOFF_LIMIT_EXCEEDED = (
        "BackoffLimitExceeded",
        "Failed Progressing WorkersReady Ready Reconciling Stalled",
        "A pod failed more often than runPolicy.backoffLimit allows.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "Failed Progressing WorkersReady Ready Reconciling Stalled",
        "The job was active for longer than runPolicy.activeDeadlineSeconds.",
    )
    PENDING_DEADLINE_EXCEEDED = (
        "PendingDeadlineExceeded",
        "Failed Degraded Progressing WorkersReady Ready Reconciling Stalled",
        "A pod was pending for longer than runPolicy.pendingDeadlineSeconds; the message says why.",
    )
    RUN_FAILED = (
        "RunFailed",
        "Failed Progressing WorkersReady Ready Reconciling Stalled",
        "The aggregator gave up; the message holds its last line.",
    )
    NOT_COMPLETE = "NotComplete", "Complete", "The run has not come to its end."
    NOT_FAILED = "NotFailed", "Failed", "The run has not failed."

    # Its results
    REPORT_PENDING = "ReportPending", "ReportReady", "The report is being written."
    REPORT_STORED = (
        "ReportStored",
        "ReportReady",
        "The report is in ConfigMap <job>-report, and in spec.report.volume where the job names one.",
    )
    REPORT_FAILED = (
        "ReportFailed",
        "ReportReady",
        "No report could be made; the message says why. The run's result stands.",
    )
