"""A small API server on the loopback: the wire is faked, never the operator's code.

It knows what the operator's edge depends on: resource versions, label selectors, watches that resume and
expire, server-side apply that creates, merge patches with a precondition, deletion by uid. No schema, no
controllers: those are tested on a real control plane.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

Object = dict[str, Any]

KINDS = {
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
    "events": "Event",
    "nodes": "Node",
    "jobs": "Job",
    "networkpolicies": "NetworkPolicy",
    "federatedincrementaljobs": "FederatedIncrementalJob",
}


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any

    @property
    def what(self) -> str:
        """Method and the path's end: `POST jobs`, `PATCH services/digits-aggregation`."""
        parts = [part for part in self.path.split("/") if part]
        start = next(index for index, part in enumerate(parts) if part in KINDS)
        return f"{self.method} {'/'.join(parts[start:])}"


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str = "", causes: tuple[str, ...] = ()) -> None:
        self.status, self.reason, self.message, self.causes = status, reason, message or reason, causes
        super().__init__(reason)

    def body(self) -> Object:
        return {
            "kind": "Status",
            "code": self.status,
            "reason": self.reason,
            "message": self.message,
            "details": {"causes": [{"reason": reason} for reason in self.causes]},
        }


@dataclass(frozen=True)
class Target:
    """What a path names."""

    plural: str
    namespace: str
    name: str
    subresource: str

    @classmethod
    def of(cls, path: str) -> Target | None:
        parts = path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if not rest or rest[0] not in KINDS:
            return None
        return cls(rest[0], namespace, rest[1] if len(rest) > 1 else "", "/".join(rest[2:]))


class ApiServer:
    """Serves what it is given; an async context manager.

    `refuse` is asked about each request and may return a Refusal; `other` answers paths that are no object.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.asked: list[Asked] = []
        self.refuse: Callable[[Asked], Refusal | None] = lambda asked: None
        self.other: dict[str, Object] = {}
        self.texts: dict[str, str] = {}
        """Answers that are no JSON, such as logs, by path."""
        self.failures: dict[str, Callable[[], web.Response]] = {}
        """Answers that no API server gives of itself, by path."""
        self.oldest = 0
        """Watches from an earlier version are told 410."""
        self.url = ""
        self._version = 100
        self._history: list[tuple[int, str, Object]] = []
        self._changed = asyncio.Condition()
        self._streams: set[asyncio.Task[Any] | None] = set()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
        await self._runner.cleanup()

    def writes(self) -> list[str]:
        """Return the writes that were asked for, in their order."""
        return [asked.what for asked in self.asked if asked.method != "GET"]

    def reads(self, plural: str) -> list[Asked]:
        """Return the reads of one resource."""
        return [asked for asked in self.asked if asked.method == "GET" and f"/{plural}" in asked.path]

    async def put(self, item: Object) -> Object:
        """Store an object as some other client would; return it with its resource version."""
        plural = next(plural for plural, kind in KINDS.items() if kind == item["kind"])
        meta = item["metadata"]
        return await self._store((plural, meta.get("namespace", ""), meta["name"]), item)

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object as some other client would."""
        plural = next(plural for plural, known in KINDS.items() if known == kind)
        await self._remove((plural, namespace, name))

    def find(self, kind: str, namespace: str, name: str) -> Object:
        """Return a stored object."""
        plural = next(plural for plural, known in KINDS.items() if known == kind)
        return self.objects[plural, namespace, name]

    def disconnect(self) -> None:
        """Cut all watches."""
        for task in self._streams:
            if task is not None:
                task.cancel()

    def expire(self) -> None:
        """Forget history: watches from now on are told 410 unless they start at the newest version."""
        self.oldest = self._version

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text() or "null")
        asked = Asked(request.method, request.path, dict(request.query), body)
        self.asked.append(asked)
        target = Target.of(request.path)
        try:
            refusal = self.refuse(asked)
            if refusal is not None:
                raise refusal
            if request.path in self.failures:
                return self.failures[request.path]()
            if request.path in self.texts:
                return web.Response(text=self.texts[request.path])
            if request.path in self.other:
                return web.json_response(self.other[request.path])
            if target is None:
                raise Refusal(404, "NotFound")
            if request.method == "GET" and not target.name:
                if "watch" in asked.query:
                    return await self._watch(request, target, asked)
                return web.json_response(self._list(target, asked.query))
            return web.json_response(await self._one(target, asked, request.content_type))
        except Refusal as error:
            return web.json_response(error.body(), status=error.status)

    async def _one(self, target: Target, asked: Asked, content: str) -> Object:
        """Serve a request for one object."""
        name = target.name or asked.body["metadata"]["name"]
        key = (target.plural, target.namespace, name)
        known = self.objects.get(key)
        if asked.method == "POST":
            if known is not None:
                raise Refusal(409, "AlreadyExists")
            return await self._store(key, {**asked.body, "kind": KINDS[target.plural]})
        if known is None and content != "application/apply-patch+yaml":
            raise Refusal(404, "NotFound", f"{target.plural} {name} not found")
        if asked.method == "GET":
            return known or {}
        if asked.method == "DELETE":
            wanted = (asked.body.get("preconditions") or {}).get("uid")
            if wanted and known and wanted != known["metadata"]["uid"]:
                raise Refusal(409, "Conflict", "the UID in the precondition does not match")
            await self._remove(key)
            return {"kind": "Status", "status": "Success"}
        wanted = asked.body.get("metadata", {}).get("resourceVersion")
        if wanted and known and wanted != known["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", "the object has been modified")
        return await self._store(key, _merged(known or {}, asked.body))

    def _list(self, target: Target, query: dict[str, str]) -> Object:
        """Return a page: `continue` is the index of its first item."""
        found = [item for key, item in sorted(self.objects.items()) if _selected(key, item, target, query)]
        first, size = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(found)
        meta = {"resourceVersion": str(self._version)}
        if first + size < len(found):
            meta["continue"] = str(first + size)
        return {"metadata": meta, "items": found[first : first + size]}

    async def _watch(self, request: web.Request, target: Target, asked: Asked) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        version = int(asked.query["resourceVersion"])
        if version < self.oldest:
            error = {"type": "ERROR", "object": Refusal(410, "Expired").body()}
            await response.write(json.dumps(error).encode() + b"\n")
            return response
        self._streams.add(asyncio.current_task())
        try:
            async for event in self._events(version, target, asked.query):
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._streams.discard(asyncio.current_task())
        return response

    async def _events(self, version: int, target: Target, query: dict[str, str]) -> AsyncIterator[Object]:
        sent = 0
        while True:
            async with self._changed:
                while len(self._history) == sent:
                    await self._changed.wait()
            for number, kind, item in self._history[sent:]:
                key = (item["_plural"], item["metadata"].get("namespace", ""), "")
                plain = {name: value for name, value in item.items() if name != "_plural"}
                if number > version and _selected(key, plain, target, query):
                    yield {"type": kind, "object": plain}
            sent = len(self._history)

    async def _store(self, key: tuple[str, str, str], item: Object) -> Object:
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self._version += 1
        meta = {
            **item["metadata"],
            "resourceVersion": str(self._version),
            "uid": item["metadata"].get("uid") or f"uid-{self._version}",
        }
        self.objects[key] = {**item, "metadata": meta}
        await self._tell(kind, key, self.objects[key])
        return self.objects[key]

    async def _remove(self, key: tuple[str, str, str]) -> None:
        self._version += 1
        item = self.objects.pop(key)
        meta = {**item["metadata"], "resourceVersion": str(self._version)}
        await self._tell("DELETED", key, {**item, "metadata": meta})

    async def _tell(self, kind: str, key: tuple[str, str, str], item: Object) -> None:
        self._history.append((self._version, kind, {**item, "_plural": key[0]}))
        async with self._changed:
            self._changed.notify_all()


def _selected(key: tuple[str, str, str], item: Object, target: Target, query: dict[str, str]) -> bool:
    plural, namespace, _ = key
    if plural != target.plural or (target.namespace and namespace != target.namespace):
        return False
    label = query.get("labelSelector")
    if label:
        wanted, equals, value = label.partition("=")
        found = (item["metadata"].get("labels") or {}).get(wanted)
        if found is None or (equals and found != value):
            return False
    fields = dict(part.split("=", 1) for part in query.get("fieldSelector", "").split(",") if part)
    involved = item.get("involvedObject") or {}
    known = {
        "metadata.name": item["metadata"]["name"],
        "involvedObject.uid": involved.get("uid"),
        "involvedObject.kind": involved.get("kind"),
        "reason": item.get("reason"),
        "type": item.get("type"),
    }
    return all(known[name] == value for name, value in fields.items())


def _merged(old: Object, patch: Object) -> Object:
    """Return `old` with a merge patch (RFC 7396)."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = _merged(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result


@asynccontextmanager
async def serving() -> AsyncIterator[ApiServer]:
    """Serve for as long as the block runs."""
    async with ApiServer() as server:
        yield server
