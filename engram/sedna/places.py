"""Which worker of the job a Sedna client is: its own name where that is one, else the first free place.

Sedna's clients call themselves what WORKER_NAME says, which outside of our pods can be anything. A client
keeps its place while the run lasts; when all are taken, a newcomer gets the place of one that is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class Places:
    """The workers of a job and the clients that sit on them."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._workers = tuple(workers)
        self._clients: dict[str, str] = {}
        """Worker -> the client that had its place last."""

    def of(self, client_id: str, connected: Collection[str]) -> str | None:
        """Return the worker that `client_id` is from now on, None when there is no place for it.

        `connected` are the workers whose clients are there.
        """
        worker = self._find(client_id, connected)
        if worker is not None:
            self._clients[worker] = client_id
        return worker

    def known(self, client_id: str) -> str | None:
        """Return the worker that `client_id` is, None for a stranger."""
        return next((worker for worker, client in self._clients.items() if client == client_id), None)

    def _find(self, client_id: str, connected: Collection[str]) -> str | None:
        before = self.known(client_id)
        if before is not None:
            return before
        if client_id in self._workers and client_id not in connected:
            return client_id
        free = [worker for worker in self._workers if worker not in self._clients]
        gone = [worker for worker in self._workers if worker not in connected]
        return next(iter(free or gone), None)
