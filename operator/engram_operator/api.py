"""HTTP to the API server: plain data in and out, every failure one exception, every request with a deadline.

Raw JSON and no model classes: what is read is turned into small views at once, so thousands of objects cost
little memory and time. Nothing is retried here but a login that has expired; retrying is the queue's affair.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from engram.spec.names import API_VERSION, KIND, PLURAL
from engram_operator.errors import ApiError
from engram_operator.model import Object
from engram_operator.settings import Settings

JSON = "application/json"
ANYTHING = "*/*"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
USER_AGENT = "engram-operator"

MOST_BYTES = 32 * 2**20
"""Of one answer; pages of lists are far smaller."""
LINE_BYTES = 2 * 2**20
"""Half of the longest line of a watch; a stored object has 1.5 MiB at most."""
SILENT_SECONDS = 75.0
"""A watch without a line for so long is dead: bookmarks come every minute."""

Query = Mapping[str, str]


class Resource(NamedTuple):
    """Where objects of a kind live."""

    api_version: str
    plural: str


RESOURCES: dict[str, Resource] = {
    "Service": Resource("v1", "services"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Secret": Resource("v1", "secrets"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Pod": Resource("v1", "pods"),
    "Event": Resource("v1", "events"),
    "Node": Resource("v1", "nodes"),
    "Job": Resource("batch/v1", "jobs"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    KIND: Resource(API_VERSION, PLURAL),
}
"""Every kind that the operator reads or writes."""


def path_of(kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the path of an object, or of all objects of a kind; no namespace: of the whole cluster."""
    resource = RESOURCES[kind]
    root = "/apis/" if "/" in resource.api_version else "/api/"
    parts = ["namespaces", namespace] if namespace else []
    parts += [resource.plural, *filter(None, (name, subresource))]
    return root + "/".join((resource.api_version, *parts))


class Api:
    """The API server, spoken to by one client with one pool of connections.

    Args:
        login: returns where the server is and who we are; called at the first request and after a 401.
        settings: the time limits.
        agent: what we call ourselves.
    """

    def __init__(
        self, login: Callable[[], Awaitable[Configuration]], settings: Settings, agent: str = USER_AGENT
    ) -> None:
        self._login, self._agent = login, agent
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._limits = aiohttp.ClientTimeout(total=settings.request_seconds, connect=settings.connect_seconds)
        self._stream = aiohttp.ClientTimeout(
            total=None, connect=settings.connect_seconds, sock_read=SILENT_SECONDS
        )

    async def close(self) -> None:
        """Close all connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        seconds: float | None = None,
    ) -> Object:
        """Send a request and return the answer's JSON; `seconds` is a shorter time limit than usual.

        Raises:
            ApiError: no answer, or none of 2xx.
        """
        limits = self._limits if seconds is None else aiohttp.ClientTimeout(total=seconds)
        call = _Call(method, path, query or {}, body, content_type, limits)
        return _parse(await self._answer(call), method, path)

    async def text(self, path: str, query: Query) -> str:
        """Return the text that a GET answers, such as a log; bytes that are no UTF-8 are replaced.

        Raises:
            ApiError: as for a request.
        """
        call = _Call("GET", path, query, None, JSON, self._limits, accept=ANYTHING)
        return (await self._answer(call)).decode(errors="replace")

    async def _answer(self, call: _Call) -> bytes:
        async with _failures(call.method, call.path):
            connection = await self._connected()
            response = await _send(connection, call)
            if response.status == 401:
                await self._dropped(connection)
                response = await _send(await self._connected(), call)
            text = await _read(response)
        if not 200 <= response.status < 300:
            raise _error(response.status, text, call.method, call.path)
        return text

    async def watch(self, path: str, query: Query) -> AsyncGenerator[Object]:
        """Yield the events of a watch until the server ends it.

        Raises:
            ApiError: as for a request; 410 when the resource version is too old, also as an ERROR event.
        """
        asked = {**query, "watch": "true", "allowWatchBookmarks": "true"}
        async with _failures("WATCH", path):
            connection = await self._connected()
            response = await _send(connection, _Call("GET", path, asked, None, JSON, self._stream))
            try:
                if response.status != 200:
                    if response.status == 401:
                        await self._dropped(connection)
                    raise _error(response.status, await _read(response), "WATCH", path)
                async for line in response.content:
                    yield _event(line, path)
            finally:
                response.close()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = _connect(await self._login(), self._agent)
            return self._connection

    async def _dropped(self, connection: _Connection) -> None:
        """Log in anew at the next request, unless another request has seen to it already."""
        if self._connection is connection:
            await self.close()


class _Connection(NamedTuple):
    client: ApiClient
    """Knows the certificates and the login; it is not sent through, because it follows redirects."""
    session: aiohttp.ClientSession


def _connect(configuration: Configuration, agent: str) -> _Connection:
    client = ApiClient(configuration)
    client.user_agent = agent
    connector = aiohttp.TCPConnector(
        limit=configuration.connection_pool_maxsize, ssl=client.rest_client.ssl_context
    )
    return _Connection(
        client, aiohttp.ClientSession(connector=connector, trust_env=True, read_bufsize=LINE_BYTES)
    )


class _Call(NamedTuple):
    method: str
    path: str
    query: Query
    body: Object | None
    content_type: str
    limits: aiohttp.ClientTimeout
    accept: str = JSON


async def _send(connection: _Connection, call: _Call) -> aiohttp.ClientResponse:
    """Send a request. No redirect is followed: a job's own pod may answer what the API server forwards."""
    client, configuration = connection.client, connection.client.configuration
    headers = {**client.default_headers, "Accept": call.accept, "Content-Type": call.content_type}
    await client.update_params_for_auth(headers, [], ["BearerToken"], call.path, call.method, call.body)
    return await connection.session.request(
        call.method,
        configuration.host + call.path + (f"?{urlencode(call.query)}" if call.query else ""),
        headers=headers,
        data=None if call.body is None else json.dumps(call.body),
        timeout=call.limits,
        proxy=configuration.proxy,
        proxy_headers=configuration.proxy_headers,
        server_hostname=configuration.tls_server_name,
        allow_redirects=False,
    )


@asynccontextmanager
async def _failures(method: str, path: str) -> AsyncIterator[None]:
    """Turn what a connection can raise into ApiError."""
    try:
        yield
    except TimeoutError as error:
        raise ApiError(0, "Unreachable", f"{method} {path}: no answer in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body; refuse one that would fill the memory."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MOST_BYTES:
            response.close()
            raise ValueError(f"an answer of more than {MOST_BYTES} bytes")
    return bytes(data)


def _event(line: bytes, path: str) -> Object:
    """Return an event of a watch; an ERROR event is raised."""
    event = _parse(line, "WATCH", path)
    if event.get("type") == "ERROR":
        found = event.get("object") or {}
        raise ApiError(int(found.get("code") or 0), found.get("reason") or "", found.get("message") or "")
    return event


def _parse(text: bytes, method: str, path: str) -> Object:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(0, "NoJson", f"{method} {path}: the answer is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(0, "NoJson", f"{method} {path}: the answer is no object")
    return found


def _error(status: int, text: bytes, method: str, path: str) -> ApiError:
    """Return the failure that a Status object describes, or what else the body says."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return ApiError(status, "", f"{method} {path}: HTTP {status}: {text[:200].decode(errors='replace')}")
    causes = (found.get("details") or {}).get("causes") or ()
    return ApiError(
        status,
        str(found.get("reason") or ""),
        str(found.get("message") or f"{method} {path}: HTTP {status}"),
        tuple(str(cause.get("reason") or "") for cause in causes),
    )
