"""List, then watch, for ever: the batch Jobs and pods that carry our label.

Not all versions of kopf that we support send a label selector with a watch, and kopf keeps a task for each
object that moves: it would stream every Job and pod of the cluster. These watches ask for ours only, resume
where they were, list anew when the API server has forgotten that place (410), and are taken for dead when not
even bookmarks arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from engram.spec.names import Label
from engram_operator.api import Api, path_of
from engram_operator.errors import ApiError
from engram_operator.model import JobKey, Object
from engram_operator.tables import ChildTable, owner_key

PAGE = 100
"""Objects listed at a time: a pod takes some 50 KB of memory while its page is read."""
WATCH_SECONDS = 300
"""After which the API server is to end a watch; it is then resumed."""
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0

logger = logging.getLogger(__name__)


class Watch:
    """Keeps a table current.

    Args:
        kind: Job or Pod.
        namespace: watched namespace; empty: the whole cluster.
        beat: told at every sign of life, attempts that fail included.
    """

    def __init__(
        self, api: Api, kind: str, namespace: str, table: ChildTable[Any], beat: Callable[[], None]
    ) -> None:
        self.listed = asyncio.Event()
        """Set when the table has been complete once."""
        self._api, self._table, self._beat = api, table, beat
        self._namespace = namespace
        self._path = path_of(kind, namespace)
        self._version = ""
        """Where to go on; empty: list first."""

    async def run(self) -> None:
        """Never ends; failures are logged once in a row and tried again."""
        pause = 0.0
        while True:
            self._beat()
            try:
                if not self._version:
                    self._version = await self._list()
                    self.listed.set()
                await self._follow()
                pause = 0.0
            except ApiError as error:
                if error.status == 410:
                    self._version = ""
                    continue
                if not pause:
                    logger.warning("watch of %s stopped, trying again: %s", self._path, error)
                pause = min(LAST_PAUSE, pause * 2 or FIRST_PAUSE)
                await asyncio.sleep(pause)

    async def _list(self) -> str:
        """Fill the table and return the version to watch from."""
        seen: set[tuple[JobKey, str]] = set()
        query = {"labelSelector": str(Label.JOB), "limit": str(PAGE)}
        while True:
            page = await self._api.request("GET", self._path, query=query)
            for item in page.get("items") or ():
                key = owner_key(item)
                if key is not None:
                    seen.add((key, item["metadata"]["name"]))
                    self._take(item)
            self._beat()
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                version = str(meta.get("resourceVersion") or "")
                self._table.keep_only(self._namespace, seen, int(version) if version.isdigit() else 0)
                return version
            query["continue"] = meta["continue"]

    async def _follow(self) -> None:
        """Take over changes until the server ends the watch."""
        query = {
            "labelSelector": str(Label.JOB),
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with aclosing(self._api.watch(self._path, query)) as events:
            async for event in events:
                self._beat()
                item = event["object"]
                if event["type"] == "DELETED":
                    self._table.drop(item)
                elif event["type"] != "BOOKMARK":
                    self._take(item)
                self._version = str(item["metadata"].get("resourceVersion") or self._version)

    def _take(self, item: Object) -> None:
        """Take over a child; one that cannot be read is left out."""
        try:
            self._table.put(item)
        except Exception:
            # The edge to what others write: an object that no reader of ours foresaw ends no watch.
            logger.exception("%s: %s cannot be read and is left out", self._path, item["metadata"]["name"])
