"""The operator's settings: one frozen type, read from the environment and the command line in one place.

Each field is the environment variable `ENGRAM_OPERATOR_<FIELD>` (what the Deployment and the chart set) and
the option `--<field>` (what a person on a laptop types); the option wins.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from engram import __version__
from engram.errors import ConfigurationError

PREFIX = "ENGRAM_OPERATOR_"
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class _Option:
    """What a field takes: bounds of a number, values of a word, and the line of the help."""

    help: str
    least: float = 0.0
    most: float = float("inf")
    choices: tuple[str, ...] = ()


def _option(help: str, **rest: Any) -> dict[str, _Option]:
    return {"option": _Option(help, **rest)}


@dataclass(frozen=True)
class Settings:
    """What an administrator decides; every field is an environment variable `ENGRAM_OPERATOR_<NAME>`."""

    image: str = field(
        default=f"engram-runtime:{__version__}",
        metadata=_option("default image of aggregator and workers"),
    )
    """Default image of aggregator and workers."""
    image_pull_policy: str = field(
        default="IfNotPresent",
        metadata=_option(
            "imagePullPolicy of aggregator and workers", choices=("IfNotPresent", "Always", "Never")
        ),
    )
    namespaces: tuple[str, ...] = field(
        default=(),
        metadata=_option("watched namespaces, separated by commas; empty: the whole cluster"),
    )
    """Watched namespaces; empty: the whole cluster."""
    in_cluster: bool = False
    """Whether Services are reached directly (in a pod) or through the API server's proxy (on a laptop);
    worked out at start, not set."""
    cluster_domain: str = field(
        default="cluster.local", metadata=_option("DNS domain of the cluster's Services")
    )
    checkpoint_size: str = field(
        default="",
        metadata=_option("size of the claim made for jobs that name no checkpoint; empty: an emptyDir"),
    )
    """Size of the claim made for jobs that name no checkpoint; empty: they get an emptyDir."""
    checkpoint_storage_class: str = field(
        default="", metadata=_option("storage class of these claims; empty: the cluster's default")
    )
    allow_service_accounts: bool = field(
        default=False, metadata=_option("whether podTemplate may name a serviceAccountName")
    )
    """Whether podTemplate may name a serviceAccountName."""
    network_policy: bool = field(
        default=False,
        metadata=_option("whether every job gets a NetworkPolicy around its aggregator"),
    )
    own_namespace: str = field(
        default="",
        metadata=_option("namespace of the operator's pod, which its NetworkPolicies let in; empty: all"),
    )
    """Namespace of the operator's pod; empty: it runs outside the cluster."""
    prometheus_namespace: str = field(
        default="",
        metadata=_option("namespace of the Prometheus that NetworkPolicies let in; empty: any namespace"),
    )
    concurrency: int = field(
        default=8, metadata=_option("jobs reconciled at the same time", least=1, most=256)
    )
    """Jobs reconciled at the same time."""
    resync_seconds: float = field(
        default=600.0, metadata=_option("seconds after which every job is looked at again", least=10.0)
    )
    poll_seconds: float = field(
        default=2.0,
        metadata=_option("shortest time in seconds between two readings of a running job", least=0.1),
    )
    """Shortest time between two readings of one aggregator's status; grows with the running jobs."""
    status_seconds: float = field(
        default=2.0,
        metadata=_option("shortest time in seconds between two status writes that change figures only"),
    )
    """Shortest time between two writes of one job's status that change figures only; a new phase or condition
    is written at once."""
    objects_seconds: float = field(
        default=30.0,
        metadata=_option("seconds for which what was read of Services, ConfigMaps and Secrets is believed"),
    )
    """How long what was read of Services, ConfigMaps and Secrets of a running job is believed."""
    request_seconds: float = field(
        default=30.0, metadata=_option("time limit of a request to the API server, in seconds", least=1.0)
    )
    connect_seconds: float = field(
        default=10.0, metadata=_option("time limit of connecting to the API server, in seconds", least=0.1)
    )
    health_port: int = field(
        default=8080,
        metadata=_option("port of /healthz and /metrics; 0: none", most=65_535),
    )
    """/healthz and /metrics of the operator; 0: none."""
    log_level: str = field(default="info", metadata=_option("how much is logged", choices=LOG_LEVELS))
    kubeconfig: str = field(
        default="",
        metadata=_option(
            "kubeconfig file; empty: the pod's service account, else $KUBECONFIG or ~/.kube/config"
        ),
    )
    context: str = field(default="", metadata=_option("context of the kubeconfig; empty: its current one"))


_OPTIONS: dict[str, tuple[dataclasses.Field[Any], _Option]] = {
    item.name: (item, item.metadata["option"]) for item in fields(Settings) if "option" in item.metadata
}
_ALIASES = {"namespaces": ("--namespace", "-n")}


def variable(name: str) -> str:
    """Return the environment variable of the field `name`."""
    return PREFIX + name.upper()


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings that the command line and the environment say; the command line wins.

    Raises:
        ConfigurationError: a value is wrong; names the option or variable, and says what to write.
        SystemExit: `--help`, or an option that does not exist (argparse).
    """
    given = vars(_parser().parse_args(arguments))
    unknown = [
        name
        for name in environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in _OPTIONS
    ]
    if unknown:
        raise ConfigurationError(
            "no such setting", field=min(unknown), remedy="`engram-operator --help` lists what can be set"
        )
    values: dict[str, Any] = {}
    for name, (item, option) in _OPTIONS.items():
        if given[name] is not None:
            values[name] = _convert(f"--{name.replace('_', '-')}", str(item.type), option, given[name])
        elif variable(name) in environ:
            values[name] = _convert(variable(name), str(item.type), option, environ[variable(name)])
    return Settings(**values)


def _parser() -> argparse.ArgumentParser:
    """Every option takes text here, so that one place judges values, wherever they come from."""
    parser = argparse.ArgumentParser(
        prog="engram-operator",
        description="Runs FederatedIncrementalJobs as pods, from inside the cluster or from a laptop.",
        epilog=f"Each option is an environment variable, too: --image is {variable('image')}.",
        allow_abbrev=False,
    )
    for name, (item, option) in _OPTIONS.items():
        default = ",".join(item.default) if isinstance(item.default, tuple) else item.default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            *_ALIASES.get(name, ()),
            dest=name,
            metavar="|".join(option.choices) or "VALUE",
            help=option.help + (f" (default {default})" if str(default) else ""),
        )
    return parser


def _convert(source: str, kind: str, option: _Option, text: str) -> object:
    """Return the value of the type `kind` that `text` says; `source` names where it was read."""
    text = text.strip()
    if kind == "bool":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ConfigurationError(f"{text!r} is neither true nor false", field=source, remedy="write one")
        return text.lower() in _TRUE
    if kind in ("int", "float"):
        return _number(source, kind, option, text)
    if kind.startswith("tuple"):
        return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if option.choices and text not in option.choices:
        raise ConfigurationError(
            f"{text!r} is not known", field=source, remedy=f"write one of {', '.join(option.choices)}"
        )
    return text


def _number(source: str, kind: str, option: _Option, text: str) -> float:
    sort = "a whole number" if kind == "int" else "a number"
    bounds = f"from {option.least:g}" + (f" to {option.most:g}" if option.most != float("inf") else "")
    try:
        value = int(text) if kind == "int" else float(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not {sort}", field=source, remedy=f"write {sort} {bounds}"
        ) from None
    if not option.least <= value <= option.most:
        raise ConfigurationError(f"{text} is out of range", field=source, remedy=f"write {sort} {bounds}")
    return value
