"""The command line: arguments in, one call out. Heavy imports happen inside the commands.

Exit codes: 0 done, 42 bad input, 75 interrupted with a checkpoint, 1 anything else; `aggregator`, `worker`
and `reporter` end with the codes of `engram.spec.exit_codes`, which the operator reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from engram import __version__
from engram.errors import ConfigurationError
from engram.run.pod import Pod, Role, this_pod
from engram.spec.names import Environment

app = typer.Typer(
    name="engram",
    help="Federated class-incremental learning that does not forget: one job file, one machine or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

import_app = typer.Typer(
    help="Write a job file from one of another system, and say what has no counterpart.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(import_app, name="import")

Imported = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file to import; files that it names are read too.")
]
ImportedTo = Annotated[
    Path | None,
    typer.Option("--out", metavar="JOB.YAML", help="New file to write; default: standard output."),
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job file.", show_default=False)]


class TransportName(StrEnum):
    """Values of `--transport`."""

    WEBSOCKET = "websocket"
    IN_PROCESS = "in-process"


class ProtocolName(StrEnum):
    """Values of `--protocol`."""

    SEDNA = "sedna"
    ENGRAM = "engram"


def main() -> None:
    """Carry out the command line."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in get_args(Role):
        sys.exit(_of_pod(cast("Role", command)))
    app()


def _of_pod(role: Role) -> int:
    """Carry out a command of the pods: a wrong option or environment is a configuration error there."""
    this_pod(role).listen()
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as error:  # typer's own: commands end with an exit code whatever happens
        say = getattr(error, "format_message", error.__str__)
        return _ended(ConfigurationError(say(), remedy=f"see engram {role} --help"), this_pod(role))


@app.callback()
def engram(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda wanted: _version(wanted), help="Print it."),
    ] = False,
) -> None:
    """Federated class-incremental learning that does not forget."""


@app.command()
def run(
    job: JobFile,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory; default: runs/<job name>, next free.")
    ] = None,
    transport: Annotated[
        TransportName,
        typer.Option(help="websocket: a process for the aggregator and each worker; in-process: no sockets."),
    ] = TransportName.WEBSOCKET,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=V1,V2", help="Run a grid: path below spec; repeat for a product."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=V", help="Change one value of the job file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run or grid.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Cells of a grid that run at the same time.")] = 1,
    rank: Annotated[
        str, typer.Option(metavar="METRIC:DIRECTION,...", help="Order of a grid's leaderboard.")
    ] = "accuracy:descend,forget_rate:ascend",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The aggregator's port; 0: any free one.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print one line at the end only.")] = False,
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True)] = False,
) -> None:
    """Run a job on this machine, from data to report. Ctrl-C saves a checkpoint; --resume continues."""

    def body() -> int:
        from engram.run.commands import RunRequest, run_command

        request = RunRequest(
            file=job,
            out=out,
            transport=transport.value,
            varies=tuple(vary or ()),
            sets=tuple(set_ or ()),
            resume=resume,
            jobs=jobs,
            rank=rank,
            port=port,
            quiet=quiet,
            command=("engram", *(word for word in sys.argv[1:] if word != "--lifeline")),
        )
        return run_command(request)

    _carry_out(body, lifeline=lifeline)


@app.command()
def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="JOB.YAML...", help="Job files.", show_default=False)
    ],
    data: Annotated[bool, typer.Option("--data", help="Also read the data and make the split.")] = False,
) -> None:
    """Check job files: schema, rules between fields, parameters, dotted paths. Prints one line a job."""

    def body() -> int:
        from engram.run.validation import validate_files

        return validate_files(files, with_data=data)

    _carry_out(body)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, or a grid's.", show_default=False)
    ],
    rank: Annotated[
        str, typer.Option(metavar="METRIC:DIRECTION,...", help="Order of the leaderboard.")
    ] = "accuracy:descend,forget_rate:ascend",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write it.")] = None,
) -> None:
    """Write the report of a run again, or compare several runs on one leaderboard."""

    def body() -> int:
        from engram.run.commands import report_command

        return report_command(runs, rank, out)

    _carry_out(body)


@app.command()
def metrics(
    matrix: Annotated[
        Path, typer.Argument(metavar="MATRIX.JSON", help="An accuracy matrix.", show_default=False)
    ],
) -> None:
    """Print every measure of an accuracy matrix as JSON."""

    def body() -> int:
        import json

        from engram.metrics.matrix import AccuracyMatrix
        from engram.metrics.measures import measure

        print(json.dumps(measure(AccuracyMatrix.load(matrix)), indent=2, allow_nan=False))
        return 0

    _carry_out(body)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition of FederatedIncrementalJob."""

    def body() -> int:
        from engram.spec.crd import render_crd

        print(render_crd(), end="")
        return 0

    _carry_out(body)


@import_app.command("ianvs")
def import_ianvs(file: Imported, out: ImportedTo = None) -> None:
    """Write the job for a benchmarking job of KubeEdge's Ianvs, and list what has no counterpart."""

    def body() -> int:
        from engram.importing.command import import_ianvs

        return import_ianvs(file, out)

    _carry_out(body)


@import_app.command("sedna")
def import_sedna(
    file: Imported,
    out: ImportedTo = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(help="sedna: the workers' images train as they are; engram: engram's worker trains."),
    ] = ProtocolName.SEDNA,
) -> None:
    """Write the job for a FederatedLearningJob of KubeEdge's Sedna, and list what has no counterpart."""

    def body() -> int:
        from engram.importing.command import import_sedna

        return import_sedna(file, out, dialect=protocol is ProtocolName.SEDNA)

    _carry_out(body)


@app.command()
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
    _carry_out(body, pod=pod, lifeline=lifeline)


@app.command()
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
        )
        return run_worker_process(options, pod)

    pod = this_pod("worker")
    _carry_out(body, pod=pod, lifeline=lifeline)


@app.command()
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
    lifeline: Annotated[bool, typer.Option("--lifeline", hidden=True)] = False,
) -> None:
    """Report a run that has ended: what the report pod runs. The compact report comes last on stdout."""

    def body() -> int:
        from engram.run.reporter import ReporterOptions, run_reporter

        options = ReporterOptions(
            job=job, records=tuple(record), out=Path(out) if out else None, deadline_seconds=deadline
        )
        return run_reporter(options)

    pod = this_pod("reporter")
    _carry_out(body, pod=pod, lifeline=lifeline)


def _carry_out(body: Callable[[], int], *, pod: Pod | None = None, lifeline: bool = False) -> None:
    """Run a command's body and exit with its code; errors become one line (`engram.run.edge`).

    `pod`: the command is one of the pods', which leaves its last word there.
    """
    from engram.run import edge

    if lifeline:
        edge.end_with_parent()
    try:
        code = int(body())
    except (Exception, KeyboardInterrupt) as error:  # the process's edge: nothing above could say it better
        raise typer.Exit(_ended(error, pod)) from None
    if pod is not None:
        pod.leave(code, "")
    raise typer.Exit(code)


def _ended(error: BaseException, pod: Pod | None) -> int:
    """Say what went wrong, on stderr and to the pod, and return the exit code."""
    from engram.run import edge

    code = edge.report(error, typed=pod is None)
    if pod is not None:
        pod.leave(code, edge.sentence_of(error), edge.reason_of(error))
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"engram {__version__}")
        raise typer.Exit
