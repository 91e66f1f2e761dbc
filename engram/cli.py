"""The command line: arguments in, one call out. Heavy imports happen inside the commands.

Exit codes: 0 done, 42 bad input, 75 interrupted with a checkpoint, 1 anything else; the pods' commands
(`engram.cli_pods`) have their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from engram import __version__, cli_pods
from engram.errors import ConfigurationError
from engram.run.pod import Role, this_pod

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
Context = Annotated[
    str, typer.Option("--context", metavar="NAME", help="Of the kubeconfig; default: its current one.")
]
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, else ~/.kube/config.")
]


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
        from engram.run import edge

        say = getattr(error, "format_message", error.__str__)
        return edge.end(ConfigurationError(say(), remedy=f"see engram {role} --help"), this_pod(role))


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
    batched: Annotated[
        bool,
        typer.Option("--batched", help="In-process: train all workers at once, for a GPU; not bit for bit."),
    ] = False,
    figures: Annotated[
        bool | None,
        typer.Option(
            "--figures/--no-figures", help="Draw figures/*.png; default: for one run, not in grids."
        ),
    ] = None,
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
            batched=batched,
            figures=figures,
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
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Run directories, or a grid's.", show_default=False),
    ] = None,
    rank: Annotated[
        str, typer.Option(metavar="METRIC:DIRECTION,...", help="Order of the leaderboard.")
    ] = "accuracy:descend,forget_rate:ascend",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write it.")] = None,
    cluster: Annotated[
        str, typer.Option(metavar="[NAMESPACE/]NAME", help="Instead of RUN: a job that ended on a cluster.")
    ] = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Write the report of a run again, or compare several runs, or fetch the report of a job on a cluster."""

    def body() -> int:
        from engram.run.commands import cluster_report, report_command

        if cluster or context or kubeconfig:
            return cluster_report(cluster, runs or (), out, context, kubeconfig)
        return report_command(runs or (), rank, out)

    _carry_out(body)


@app.command()
def check(
    job: JobFile,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Default: the file's or the context's.")
    ] = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Say before a job is applied what in a cluster would keep it from running. Exit code 1: something."""

    def body() -> int:
        from engram.run.plugin import run_plugin

        options = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
        return run_plugin("check", [str(job)], options)

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


for command in cli_pods.COMMANDS:
    app.command()(command)


def _carry_out(body: Callable[[], int], *, lifeline: bool = False) -> None:
    """Run a command's body and exit with its code; errors become one line (`engram.run.edge`)."""
    from engram.run import edge

    raise typer.Exit(edge.carry_out(body, lifeline=lifeline))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"engram {__version__}")
        raise typer.Exit
