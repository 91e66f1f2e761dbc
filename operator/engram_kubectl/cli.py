"""The command line of the plug-in: arguments in, one call out. Heavy imports happen inside the commands.

Every error ends in one line on stderr and an exit code (`engram_kubectl.edge`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram import __version__

if TYPE_CHECKING:
    from engram_kubectl.connection import Target

app = typer.Typer(
    name="kubectl engram",
    help="Federated class-incremental learning jobs on a cluster: progress, diagnosis, logs, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="[NAMESPACE/]NAME", help="The job.", show_default=False)]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Default: the one of the context.")
]
Context = Annotated[
    str, typer.Option("--context", metavar="NAME", help="Of the kubeconfig; default: its current one.")
]
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, else ~/.kube/config.")
]


@app.callback()
def kubectl_engram(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda wanted: _version(wanted), help="Print it."),
    ] = False,
) -> None:
    """Jobs of engram on a cluster."""


@app.command()
def get(
    name: Annotated[
        str, typer.Argument(metavar="[[NAMESPACE/]NAME]", help="One job; none: a line for each.")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until the job has ended.")] = False,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show a job's progress, or all jobs."""

    async def body(target: Target) -> int:
        from engram_kubectl.looking import get

        return await get(target, name, watch=watch, everywhere=all_namespaces)

    _carry_out(body, kubeconfig, context, namespace)


@app.command()
def describe(
    name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Say what is wrong with a job, if anything: conditions, workers, tasks, Events."""

    async def body(target: Target) -> int:
        from engram_kubectl.looking import describe

        return await describe(target, name)

    _carry_out(body, kubeconfig, context, namespace)


@app.command()
def logs(
    name: Name,
    worker: Annotated[
        str, typer.Argument(metavar="[WORKER]", help="Such as edge-0, or aggregator; none: every worker.")
    ] = "",
    tail: Annotated[int, typer.Option(min=1, max=100_000, help="Lines of each log.")] = 50,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Print what workers said, also what came over the training connection before they ended."""

    async def body(target: Target) -> int:
        from engram_kubectl.logs import logs

        return await logs(target, name, worker, tail)

    _carry_out(body, kubeconfig, context, namespace)


@app.command()
def report(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New directory; default: runs/<job name>, next free.")
    ] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Fetch the report of a job that has ended."""

    async def body(target: Target) -> int:
        from engram_kubectl.reports import report

        return await report(target, name, out)

    _carry_out(body, kubeconfig, context, namespace)


@app.command()
def wait(
    name: Name,
    condition: Annotated[
        str, typer.Option("--for", metavar="CONDITION", help="Complete, Failed, ReportReady or WorkersReady.")
    ] = "Complete",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Such as 90s, 15m or 2h; 0: no limit.")] = "0",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Wait for a job with its progress on a line. Exit code 0: it holds; 1: it never will; 124: too late."""

    async def body(target: Target) -> int:
        from engram_kubectl.waiting import condition_named, seconds_of, wait

        return await wait(target, name, condition_named(condition), seconds_of(timeout))

    _carry_out(body, kubeconfig, context, namespace)


@app.command()
def check(
    job: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job file.", show_default=False)],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Say before a job is applied what in the cluster would keep it from running. Exit code 1: something."""

    async def body(target: Target) -> int:
        from engram_kubectl.check.command import check

        return await check(target, job)

    _carry_out(body, kubeconfig, context, namespace)


def _carry_out(
    body: Callable[[Target], Awaitable[int]], kubeconfig: str, context: str, namespace: str
) -> None:
    """Run a command's body on the cluster that was named, and exit with its code."""
    from engram_kubectl import edge

    raise typer.Exit(edge.carry_out(body, kubeconfig, context, namespace))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kubectl-engram {__version__}")
        raise typer.Exit
