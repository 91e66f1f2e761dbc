"""What the plug-in raises on purpose beside `engram.errors`, and the answers of an API server in plain words.

Exit codes are those of the other commands that a person types: 42 where something must change (kubeconfig,
name, rights, CRD), 75 where another try may do, 1 for anything else.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import aiohttp

from engram.errors import ConfigurationError, EngramError, RetryError
from engram_operator.errors import ApiError

INSTALL = "engram crd | kubectl apply --server-side --force-conflicts -f -"
"""The command that installs the CRD, as the operator says it, too."""
PASSING = (0, 408, 410, 429)
"""Answers below 500 that another try may change; 0: there was none."""


class UnreachableError(RetryError):
    """The cluster cannot be reached now."""


class NotYetError(RetryError):
    """What was asked for is still to come; says what to wait for."""


class NothingThereError(EngramError):
    """What was asked for is not there and will not come."""


def passing(error: ApiError) -> bool:
    """Return whether another try may succeed."""
    return error.status in PASSING or error.status >= 500


def explained(error: ApiError, host: str) -> EngramError:
    """Return in one sentence what an answer of the API server at `host`, or none, means for a person."""
    if error.status == 0:
        return _unanswered(error, host)
    if error.status == 401:
        return ConfigurationError(
            f"the cluster at {host} does not accept these credentials",
            remedy="log in again, or name another --context or --kubeconfig",
        )
    if error.status == 403:
        return ConfigurationError(
            error.message,
            remedy="ask for the role engram-view, or engram-edit to run jobs, in that namespace",
        )
    if not_installed(error):
        return no_crd(host)
    if passing(error):
        return UnreachableError(f"the cluster at {host} is not well: {error.message}: try again")
    return EngramError(f"the cluster at {host} refuses: {error.message}")


def not_installed(error: ApiError) -> bool:
    """Return whether a 404 is of the whole resource: that one has no Status object."""
    return error.status == 404 and not error.reason


def no_crd(host: str) -> ConfigurationError:
    """Return what to do about a cluster without engram."""
    return ConfigurationError(
        f"engram is not installed in the cluster at {host}",
        remedy=f"install the chart (helm install engram charts/engram), or the CRD alone: {INSTALL}",
    )


def _unanswered(error: ApiError, host: str) -> EngramError:
    causes = list(_causes(error))
    tls = [cause for cause in causes if isinstance(cause, ssl.SSLError | aiohttp.ClientSSLError)]
    if tls:
        said = (str(getattr(cause, "verify_message", "")) for cause in tls)
        why = next(filter(None, said), "") or " ".join(str(tls[-1]).split())
        return ConfigurationError(
            f"TLS with the cluster at {host} fails: {why}",
            remedy="correct certificate-authority-data in the kubeconfig, or name another --context",
        )
    remedy = "start the cluster, or name another --context or --kubeconfig"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return UnreachableError(f"nobody listens at {host}: {remedy}")
    if any(isinstance(cause, aiohttp.ClientConnectorDNSError) for cause in causes):
        return UnreachableError(f"the name in {host} is not known here: correct it, or {remedy}")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return UnreachableError(f"the cluster at {host} does not answer: {remedy}")
    return UnreachableError(f"the cluster at {host} cannot be reached: {error.message}: {remedy}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception was raised from, and the errors of the system inside aiohttp's."""
    found = error.__cause__
    while found is not None:
        yield found
        inner = getattr(found, "certificate_error", None) or getattr(found, "os_error", None)
        if isinstance(inner, BaseException):
            yield inner
        found = found.__cause__ or found.__context__
