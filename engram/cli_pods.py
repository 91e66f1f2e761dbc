"""The commands that pods run: their options come from the environment that the operator writes.

They end with the codes of `engram.spec.exit_codes`, which the operator reads, and leave a last word for the
kubelet. Heavy imports happen inside the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from engram.run.pod import Pod, this_pod
from engram.spec.names import Environment


def aggregator(
    job: Annotated[Path, typer.Option(envvar=Environment.ENGRAM_JOB_FILE.value, help="The job file.")],
    key_file: Annotated[
        Path,
        typer.Option(
            envvar=Environment.ENGRAM_KEY_FILE.value, help="Key of the workers' tokens, hexadecimal."
        ),
    ],
    dir_: Annotated[
        Path,
        typer.Option("--dir", envvar=Environment.ENGRAM_CHECKPOINT_DIR.value, help="Checkpoint and record."),
    ],
    host: Annotated[str, typer.Option(envvar=Environment.AGG_BIND_IP.value, help="Listen on.")] = "0.0.0.0",
    port: Annotated[
        int, typer.Option(envvar=Environment.AGG_BIND_PORT.value, min=0, max=65535, help="Federation port.")
    ] = 7363,
    status_host: Annotated[str, typer.Option(help="Listen on, for /metrics and /v1/status.")] = "0.0.0.0",
    status_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of /metrics and /v1/status.")
    ] = 9464,
    uid: Annotated[str, typer.Option(envvar=Environment.ENGRAM_JOB_UID.value, help="Uid of the job.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(envvar=Environment.ENGRAM_DATA_DIR.value, help="Where the data are mounted."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar=Environment.ENGRAM_TLS_CERT_FILE.value, help="Certificate (PEM); none: no TLS."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(envvar=Environment.ENGRAM_TLS_KEY_FILE.value, help="Its private key (PEM)."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Most seconds at the end to serve the record until it is fetched.")
    ] = 0.0,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True)] = False,
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
    job: Annotated[Path, typer.Option(envvar=Environment.ENGRAM_JOB_FILE.value, help="The job file.")],
    token_file: Annotated[
        Path, typer.Option(envvar=Environment.ENGRAM_TOKEN_FILE.value, help="This worker's token.")
    ],
    name: Annotated[
        str, typer.Option(envvar=Environment.WORKER_NAME.value, help="Name, such as trainworker-edge-0.")
    ] = "",
    index: Annotated[
        int | None, typer.Option(min=0, help="Instead of the name: number over all groups, from 0.")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="The aggregator; repeat for alternatives.")
    ] = None,
    endpoints_file: Annotated[
        Path | None,
        typer.Option(
            envvar=Environment.ENGRAM_ENDPOINTS_FILE.value,
            help="One HOST:PORT a line; read again at each reconnect.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar=Environment.ENGRAM_CA_FILE.value,
            help="CA of the aggregator's certificate (PEM); none: no TLS.",
        ),
    ] = None,
    tls_name: Annotated[
        str,
        typer.Option(
            envvar=Environment.ENGRAM_TLS_NAME.value,
            help="Name in that certificate, whatever is dialled; empty: the host that is dialled.",
        ),
    ] = "",
    attempt: Annotated[int, typer.Option(min=1, help="How often this worker was started.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(envvar=Environment.ENGRAM_DATA_DIR.value, help="Where the data are mounted."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar=Environment.ENGRAM_STATE_DIR.value,
            help="Kept for this worker over restarts; none: what compression owes is lost at a restart.",
        ),
    ] = None,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True)] = False,
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
    job: Annotated[Path, typer.Option(envvar=Environment.ENGRAM_JOB_FILE.value, help="The job file.")],
    record: Annotated[
        list[str],
        typer.Option(
            metavar="URL|PATH",
            help="The run's record: http://HOST:PORT/v1/record or a run directory; repeat for alternatives.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            envvar=Environment.ENGRAM_REPORT_DIR.value,
            help="Keep the full report below this directory; empty: nowhere.",
        ),
    ] = "",
    deadline: Annotated[float, typer.Option(min=0, help="Seconds that the record may be in coming.")] = 60.0,
    peer: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            envvar=Environment.ENGRAM_REPORT_PEERS.value,
            help="The report of another job, for a leaderboard; repeat for more.",
        ),
    ] = None,
    prometheus: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar=Environment.ENGRAM_PROMETHEUS_URL.value,
            help="Ask it what it saw of the workers' machines.",
        ),
    ] = "",
    prometheus_secret: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar=Environment.ENGRAM_PROMETHEUS_SECRET_DIR.value,
            help="Its token, or username and password, and ca.crt, a file each.",
        ),
    ] = None,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True)] = False,
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
