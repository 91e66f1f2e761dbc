"""TLS on the federation port: the job's own CA, one fixed name, whatever address was dialled.

A worker on an edge node may reach the aggregator by a Service, a node's address or a public one; the
certificate carries one name only, so the name is checked and the address is not. No other CA is trusted.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from engram.errors import ConfigurationError
from engram.federation.standing import StandingFile


class TlsClient:
    """What a worker verifies the aggregator by."""

    def __init__(self, ca: Path, name: str = "") -> None:
        """Trust the certificates in `ca` (PEM), as they are at each connection.

        `name` stands in the aggregator's certificate; empty: the host that is dialled.
        """
        self.ca, self.name = ca, name
        self._file = StandingFile(ca)

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts this CA alone. Raises ConfigurationError for a file that is none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=self._file.read().decode("ascii", "ignore"))
        except (OSError, ValueError) as error:  # ssl.SSLError is the one, an empty file the other
            raise _unusable(self.ca, "no certificate of a CA", error, "--ca") from error
        return context


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what the aggregator listens with. Raises ConfigurationError for files that are of no use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        what = "a certificate and a key that do not belong together, or cannot be read"
        raise _unusable(certificate, f"with {key}: {what}", error, "--tls-cert") from error
    return context


def _unusable(path: Path, what: str, error: OSError | ValueError, option: str) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigurationError(
        f"{what} ({reason})", field=option, file=str(path), remedy="mount or write the PEM file there"
    )
