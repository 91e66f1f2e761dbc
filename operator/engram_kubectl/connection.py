"""From a kubeconfig to a cluster that can be asked, with every way in which that fails in one sentence."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from engram.errors import ConfigurationError
from engram_kubectl.errors import explained
from engram_operator.api import Api
from engram_operator.errors import ApiError
from engram_operator.settings import Settings

AGENT = "kubectl-engram"
DEFAULT_FILE = "~/.kube/config"
REQUEST_SECONDS, CONNECT_SECONDS = 30.0, 10.0
_WRONG = (ConfigException, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError, OSError)
"""The client walks a kubeconfig without checks: a malformed one ends in any of these."""


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace, as it was typed; empty: as the kubeconfig says."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Cluster:
    """A cluster to ask."""

    api: Api
    host: str
    context: str
    namespace: str
    """What a name without one belongs to."""


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Cluster]:
    """Give the cluster that `target` names; what it refuses within the block is explained at its end.

    Raises:
        ConfigurationError: there is no such kubeconfig or context.
        EngramError: an answer of the API server that nothing within the block has dealt with.
    """
    files = _files(target.kubeconfig)
    name, namespace = _context(files, target.context)

    async def login() -> Configuration:
        return await _configuration(files, name)

    host = (await login()).host
    settings = Settings(request_seconds=REQUEST_SECONDS, connect_seconds=CONNECT_SECONDS)
    api = Api(login, settings, agent=AGENT)
    try:
        yield Cluster(api, host, name, target.namespace or namespace)
    except ApiError as error:
        raise explained(error, host) from error
    finally:
        await api.close()


def _files(given: str) -> str:
    """Return the kubeconfig files in use, as kubectl finds them."""
    text = given or os.environ.get("KUBECONFIG") or DEFAULT_FILE
    files = [Path(part).expanduser() for part in text.split(os.pathsep) if part]
    if not any(file.is_file() for file in files):
        raise ConfigurationError(
            f"there is no kubeconfig at {text}",
            remedy="name one with --kubeconfig FILE or in $KUBECONFIG",
        )
    return os.pathsep.join(str(file) for file in files)


def _context(files: str, wanted: str) -> tuple[str, str]:
    """Return the name of the context in use and its namespace."""
    contexts, current = dict[str, Any](), ""
    try:
        for file in files.split(os.pathsep):
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) if Path(file).is_file() else {}
            for item in (content or {}).get("contexts") or ():
                contexts.setdefault(str(item["name"]), item.get("context") or {})
            current = current or str((content or {}).get("current-context") or "")
    except _WRONG as error:
        raise _unusable(files, error) from error
    name = wanted or current
    if not name:
        raise ConfigurationError(
            f"kubeconfig {files} names no current context", remedy="name one with --context"
        )
    if name not in contexts:
        there = f"it has {', '.join(sorted(contexts))}" if contexts else "it has none"
        raise ConfigurationError(
            f"there is no context {name} in kubeconfig {files}", field="--context", remedy=there
        )
    return name, str(contexts[name].get("namespace") or "default")


async def _configuration(files: str, context: str) -> Configuration:
    configuration = Configuration()
    try:
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files, context=context, client_configuration=configuration, persist_config=False
        )
    except _WRONG as error:
        raise _unusable(files, error) from error
    return configuration


def _unusable(files: str, error: Exception) -> ConfigurationError:
    words = " ".join(str(error).split()) or type(error).__name__
    return ConfigurationError(f"kubeconfig {files} cannot be used: {words}", remedy="correct it")
