"""Where the cluster is and who we are: one answer for kopf and for our own client.

A named kubeconfig wins; else the service account, inside a pod; else $KUBECONFIG or ~/.kube/config. Called
again whenever the API server says 401: tokens of service accounts and exec plugins live for an hour or less.
"""

from __future__ import annotations

import os
import pathlib

import kopf
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from engram_operator.errors import StartError
from engram_operator.settings import Settings

SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_BEARER = "BearerToken"
_WRONG = (ConfigException, ValueError, TypeError, KeyError, AttributeError)
"""The client walks the file without checks, so that a malformed one ends in any of these."""


def runs_in_pod(settings: Settings) -> bool:
    """Return whether the pod's service account is used."""
    return not settings.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ and SERVICE_ACCOUNT.is_file()


async def load_configuration(settings: Settings) -> Configuration:
    """Return the client's configuration.

    Raises:
        StartError: there is none, or it cannot be read.
    """
    configuration = Configuration()
    if runs_in_pod(settings):
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return configuration
    path = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=_expanded(path),
            context=settings.context or None,
            client_configuration=configuration,
            persist_config=False,
        )
    except (*_WRONG, yaml.YAMLError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise StartError(f"kubeconfig {path} cannot be used: {words}") from error
    return configuration


def _expanded(path: str) -> str:
    """Return the files that `path` names, as absolute ones."""
    files = [pathlib.Path(part).expanduser() for part in path.split(os.pathsep) if part]
    if not any(file.is_file() for file in files):
        raise StartError(
            f"no kubeconfig at {path}: write --kubeconfig FILE, or run the operator in a pod with a "
            "service account"
        )
    return os.pathsep.join(str(file) for file in files)


def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return the same for kopf."""
    scheme, _, token = (configuration.api_key.get(_BEARER) or "").strip().rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        scheme=(scheme or "Bearer").capitalize() if token else None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
