"""The commands that pods run: their options come from the environment that the operator writes.

They end with the codes of `engram.spec.exit_codes`, which the operator reads, and leave a last word for the
kubelet. Heavy imports happen inside the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engram.run.pod import Pod, this_pod
from engram.spec.names import Environment


def _given(variable: Environment, help: str, *names: str, **more: Any) -> Any:
    """Return an option that the environment of a pod sets."""
    return typer.Option(*names, envvar=variable.value, help=help, **more)


Port = Annotated[int, _given(Environment.AGG_BIND_PORT, "Federation port.", min=0, max=65535)]
StatusPort = Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics and /v1/status.")]
JobFile = Annotated[Path, _given(Environment.ENGRAM_JOB_FILE, "The job file.")]
KeyFile = Annotated[Path, _given(Environment.ENGRAM_KEY_FILE, "Key of the workers' tokens, hexadecimal.")]
Directory = Annotated[Path, _given(Environment.ENGRAM_CHECKPOINT_DIR, "Checkpoint and record.", "--dir")]
Host = Annotated[str, _given(Environment.AGG_BIND_IP, "Listen on.")]
StatusHost = Annotated[str, typer.Option(help="Listen on, for /metrics and /v1/status.")]
Uid = Annotated[str, _given(Environment.ENGRAM_JOB_UID, "Uid of the job.")]
Data = Annotated[Path | None, _given(Environment.ENGRAM_DATA_DIR, "Where the data are mounted.")]
Certificate = Annotated[
    Path | None, _given(Environment.ENGRAM_TLS_CERT_FILE, "Certificate (PEM); none: no TLS.")
]
PrivateKey = Annotated[Path | None, _given(Environment.ENGRAM_TLS_KEY_FILE, "Its private key (PEM).")]
Grace = Annotated[
    float, typer.Option(min=0, help="Most seconds at the end to serve the record until it is fetched.")
]

TokenFile = Annotated[Path, _given(Environment.ENGRAM_TOKEN_FILE, "This worker's token.")]
Name = Annotated[str, _given(Environment.WORKER_NAME, "Name, such as trainworker-edge-0.")]
Index = Annotated[
    int | None, typer.Option(min=0, help="Instead of the name: number over all groups, from 0.")
]
Endpoint = Annotated[
    list[str] | None, typer.Option(metavar="HOST:PORT", help="The aggregator; repeat for alternatives.")
]
EndpointsFile = Annotated[
    Path | None,
    _given(Environment.ENGRAM_ENDPOINTS_FILE, "One HOST:PORT a line; read again at each reconnect."),
]
Authority = Annotated[
    Path | None, _given(Environment.ENGRAM_CA_FILE, "CA of the aggregator's certificate (PEM); none: no TLS.")
]
TlsName = Annotated[
    str,
    _given(
        Environment.ENGRAM_TLS_NAME,
        "Name in that certificate, whatever is dialled; empty: the host that is dialled.",
    ),
]
Attempt = Annotated[int, typer.Option(min=1, help="How often this worker was started.")]
StateDirectory = Annotated[
    Path | None,
    _given(
        Environment.ENGRAM_STATE_DIR,
        "Kept for this worker over restarts; none: what compression owes is lost at a restart.",
    ),
]

Records = Annotated[
    list[str],
    typer.Option(
        metavar="URL|PATH",
        help="The run's record: http://HOST:PORT/v1/record or a run directory; repeat for alternatives.",
    ),
]
Reports = Annotated[
    str, _given(Environment.ENGRAM_REPORT_DIR, "Keep the full report below this directory; empty: nowhere.")
]
Deadline = Annotated[float, typer.Option(min=0, help="Seconds that the record may be in coming.")]
Peers = Annotated[
    list[Path] | None,
    _given(
        Environment.ENGRAM_REPORT_PEERS,
        "The report of another job, for a leaderboard; repeat for more.",
        metavar="DIR",
    ),
]
Prometheus = Annotated[
    str,
    _given(Environment.ENGRAM_PROMETHEUS_URL, "Ask it what it saw of the workers' machines.", metavar="URL"),
]
PrometheusSecret = Annotated[
    Path | None,
    _given(
        Environment.ENGRAM_PROMETHEUS_SECRET_DIR,
        "Its token, or username and password, and ca.crt, a file each.",
        metavar="DIR",
    ),
]
Lifeline = Annotated[bool, typer.Option("--lifeline", hidden=True)]


def aggregator(
    job: JobFile,
    key_file: KeyFile,
    dir_: Directory,
    host: Host = "0.0.0.0",
    port: Port = 7363,
    status_host: StatusHost = "0.0.0.0",
    status_port: StatusPort = 9464,
    uid: Uid = "",
    data: Data = None,
    tls_cert: Certificate = None,
    tls_key: PrivateKey = None,
    grace: Grace = 0.0,
    lifeline: Lifeline = False,
) -> None:
    """Aggregate: what the aggregation pod runs. Options may come from its environment."""

    def body() -> int:
        from engram.run.aggregator import AggregatorOptions, run_aggregator

        options = AggregatorOptions(
            job=job,
            directory=dir_,
            key_file=key_file,
            host=host,
            port=port,
            status_host=status_host,
            status_port=status_port,
            uid=uid,
            data=data,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            grace_seconds=grace,
        )
        return run_aggregator(options, pod)

    pod = this_pod("aggregator")
    _carry_out(body, pod, lifeline=lifeline)


def worker(
    job: JobFile,
    token_file: TokenFile,
    name: Name = "",
    index: Index = None,
    endpoint: Endpoint = None,
    endpoints_file: EndpointsFile = None,
    ca: Authority = None,
    tls_name: TlsName = "",
    attempt: Attempt = 1,
    data: Data = None,
    state_dir: StateDirectory = None,
    lifeline: Lifeline = False,
) -> None:
    """Train for an aggregator: what a worker pod runs. Options may come from its environment."""

    def body() -> int:
        from engram.run.endpoints import Endpoints
        from engram.run.worker import WorkerOptions, run_worker_process

        options = WorkerOptions(
            job=job,
            name="" if index is not None else name,
            index=index,
            endpoints=Endpoints(tuple(endpoint or ()), endpoints_file),
            token_file=token_file,
            ca=ca,
            tls_name=tls_name,
            attempt=attempt,
            data=data,
            state=state_dir,
        )
        return run_worker_process(options, pod)

    pod = this_pod("worker")
    _carry_out(body, pod, lifeline=lifeline)


def reporter(
    job: JobFile,
    record: Records,
    out: Reports = "",
    deadline: Deadline = 60.0,
    peer: Peers = None,
    prometheus: Prometheus = "",
    prometheus_secret: PrometheusSecret = None,
    lifeline: Lifeline = False,
) -> None:
    """Report a run that has ended: what the report pod runs. The compact report comes last on stdout."""

    def body() -> int:
        from engram.run.prometheus import Server
        from engram.run.reporter import ReporterOptions, run_reporter

        options = ReporterOptions(
            job=job,
            records=tuple(record),
            out=Path(out) if out else None,
            deadline_seconds=deadline,
            peers=tuple(peer or ()),
            prometheus=Server(prometheus, prometheus_secret) if prometheus else None,
        )
        return run_reporter(options)

    pod = this_pod("reporter")
    _carry_out(body, pod, lifeline=lifeline)


COMMANDS = (aggregator, worker, reporter)


def _carry_out(body: Callable[[], int], pod: Pod, *, lifeline: bool) -> None:
    """Run a command's body and exit with its code, which `pod` hears as well."""
    from engram.run import edge

    raise typer.Exit(edge.carry_out(body, pod, lifeline=lifeline))
