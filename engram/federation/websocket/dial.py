"""Reaching an endpoint step by step, so that a worker can say which step failed: DNS, TCP, TLS or token.

Names are looked up in a thread of their own with a short patience: an edge node without DNS would else hold a
worker up for half a minute before it tries the next endpoint, and at its exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.proxy import get_proxy
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from engram.errors import ConfigurationError
from engram.federation.websocket.stream import WRITE_LIMIT, ClientStream
from engram.federation.websocket.tls import TlsClient
from engram.federation.websocket.wire import PATH, SUBPROTOCOL

Step: TypeAlias = Literal["DNS", "TCP", "TLS", "token", "answer"]
Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]

RESOLVE_SECONDS = 1.5
CONNECT_SECONDS = 5.0
OPEN_SECONDS = 20.0
CLOSE_SECONDS = 2.0
PORTS = {"ws": 80, "wss": 443}


class Unreachable(Exception):
    """An endpoint that cannot be used now, and in words why."""

    def __init__(self, step: Step, sentence: str) -> None:
        self.step = step
        super().__init__(f"{step}: {sentence}")


def url_of(endpoint: str, *, tls: bool) -> str:
    """Return a full URL for host:port, ws://host:port, wss://host:port, or a URL with a path of its own.

    Raises ConfigurationError for anything else, and for ws:// where a CA was given.
    """
    url = endpoint if "://" in endpoint else f"{'wss' if tls else 'ws'}://{endpoint}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise ConfigurationError(f"{endpoint!r} is no endpoint", remedy="write HOST:PORT")
    if tls and parts.scheme == "ws":
        raise ConfigurationError(
            f"{endpoint} is without TLS, but a CA was given", remedy="write HOST:PORT or wss://HOST:PORT"
        )
    return url if parts.path.strip("/") else url.rstrip("/") + PATH


async def open_connection(url: str, tls: TlsClient | None, headers: Mapping[str, str]) -> ClientStream:
    """Return a connection whose handshakes are done, direct or through a proxy of the environment.

    Raises Unreachable, or what `explain` turns into it.
    """
    options: dict[str, Any] = {}
    if tls is not None:
        try:
            options["ssl"] = tls.context()
        except ConfigurationError as error:  # at the start it would have ended the worker
            raise Unreachable("TLS", str(error)) from error
        options["server_hostname"] = tls.name or urlsplit(url).hostname
    proxy = None if _is_loopback(url) else get_proxy(parse_uri(url))
    if proxy is None:
        options["sock"] = await dial(url)
    connection = await connect(
        url,
        create_connection=ClientStream,
        additional_headers=headers,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        ping_interval=None,
        open_timeout=OPEN_SECONDS,
        close_timeout=CLOSE_SECONDS,
        max_size=None,
        write_limit=WRITE_LIMIT,
        proxy=proxy,
        **options,
    )
    return cast(ClientStream, connection)


async def dial(url: str) -> socket.socket:
    """Return a connected socket to the host of `url`, the first of its addresses that answers.

    Raises Unreachable.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    failure = Unreachable("DNS", f"{host} has no address")
    for family, address in await _addresses(host, port):
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setblocking(False)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(found, address)
        except TimeoutError:
            found.close()
            failure = Unreachable("TCP", f"{address[0]}:{port} did not answer for {CONNECT_SECONDS:g} s")
        except OSError as error:
            found.close()
            failure = Unreachable("TCP", f"{address[0]}:{port}: {error.strerror or error}")
        except BaseException:
            found.close()
            raise
        else:
            return found
    raise failure


async def _addresses(host: str, port: int) -> list[Address]:
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(host).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        return [(family, (host, port))]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()
    threading.Thread(target=_look_up, args=(host, port, loop, answer), name="resolver", daemon=True).start()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await answer
    except TimeoutError:
        problem = f"no answer for {host} within {RESOLVE_SECONDS:g} s"
    except OSError as error:
        problem = f"{host} is not known here ({error.strerror or error})"
    raise Unreachable("DNS", problem)


def _look_up(
    host: str, port: int, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Address]]
) -> None:
    """Resolve in a thread; who asked may have given up by then, or may be gone altogether."""
    found: list[Address] = []
    failure: OSError | None = None
    try:
        found = [
            (family, address)
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ]
    except OSError as error:
        failure = error
    except UnicodeError:
        failure = OSError(f"{host!r} is no name of a host")

    def tell() -> None:
        if answer.done():
            return
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(tell)


def explain(error: Exception, url: str, tls: TlsClient | None) -> Unreachable:
    """Return in words why a connection that TCP had opened came to nothing."""
    if isinstance(error, Unreachable):
        return error
    host = urlsplit(url).hostname or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        wanted = (tls.name if tls is not None else "") or host
        ca = f"the CA in {tls.ca}" if tls is not None else "this machine"
        return Unreachable("TLS", f"its certificate is not one of {ca} for {wanted}: {error.verify_message}")
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionError) and url.startswith("wss:")):
        reason = getattr(error, "reason", None) or str(error) or "the connection was closed"
        return Unreachable(
            "TLS", f"no TLS comes back ({reason}): the aggregator runs without it, or it is another server"
        )
    if isinstance(error, InvalidMessage):
        hint = "give the job's CA (--ca, ENGRAM_CA_FILE) if the aggregator speaks TLS"
        return Unreachable("TLS" if url.startswith("ws:") else "answer", f"no WebSocket answer: {hint}")
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        body = bytes(error.response.body or b"").decode(errors="replace").strip()
        if status in (401, 403):
            return Unreachable("token", body or f"answered {status}")
        return Unreachable("answer", f"HTTP {status} {body[:80]}".rstrip())
    step: Step = "TLS" if url.startswith("wss:") else "answer"
    return Unreachable(step, str(error) or type(error).__name__)


def _is_loopback(url: str) -> bool:
    """Return whether `url` is on this machine, which no proxy of the environment can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
