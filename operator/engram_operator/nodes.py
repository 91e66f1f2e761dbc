"""The nodes, read where somebody needs one, shared by all jobs, and believed for a while.

A namespaced operator may not read nodes: it is refused once in a while, and everybody sees None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from engram_operator.api import Api, path_of
from engram_operator.errors import ApiError
from engram_operator.model import NodeView

ALL_SECONDS = 60.0
"""How long the list of all nodes is believed."""
ONE_SECONDS = 10.0
"""How long one node is believed."""
FORBIDDEN_SECONDS = 600.0
"""How long a refusal is believed."""
PAGE = 200


class Nodes:
    """Views of nodes; None where they may not be read."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock
        self._lock = asyncio.Lock()
        self._all: tuple[float, tuple[NodeView, ...]] | None = None
        self._some: dict[str, tuple[float, NodeView | None]] = {}
        self._forbidden: float | None = None

    async def all(self) -> tuple[NodeView, ...] | None:
        """Return all nodes."""
        async with self._lock:
            if self._refused():
                return None
            if self._all is not None and self._clock() - self._all[0] < ALL_SECONDS:
                return self._all[1]
            try:
                self._all = (self._clock(), await self._list())
            except ApiError as error:
                self._refuse(error)
                return None
            return self._all[1]

    async def some(self, names: Iterable[str]) -> tuple[NodeView, ...] | None:
        """Return the named nodes, without those that are gone."""
        async with self._lock:
            found = []
            for name in names:
                if self._refused():
                    return None
                known = self._some.get(name)
                if known is None or self._clock() - known[0] >= ONE_SECONDS:
                    try:
                        known = (self._clock(), await self._get(name))
                    except ApiError as error:
                        self._refuse(error)
                        return None
                    self._some[name] = known
                found.append(known[1])
            return tuple(node for node in found if node is not None)

    async def _list(self) -> tuple[NodeView, ...]:
        found: list[NodeView] = []
        query = {"limit": str(PAGE)}
        while True:
            page = await self._api.request("GET", path_of("Node"), query=query)
            found += (NodeView.from_object(item) for item in page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return tuple(found)
            query["continue"] = token

    async def _get(self, name: str) -> NodeView | None:
        try:
            return NodeView.from_object(await self._api.request("GET", path_of("Node", name=name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _refused(self) -> bool:
        return self._forbidden is not None and self._clock() - self._forbidden < FORBIDDEN_SECONDS

    def _refuse(self, error: ApiError) -> None:
        if error.status != 403:
            raise error
        self._forbidden = self._clock()
