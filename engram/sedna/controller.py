"""What a worker tells Sedna's Local Controller after a round, without waiting for it.

Sedna's own client stops for twelve seconds when nobody answers; a report is not worth that.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any
from urllib.parse import quote

TIMEOUT_SECONDS = 5.0

log = logging.getLogger(__name__)


class ControllerClient:
    """Reports one worker's rounds to `server`, the value of LC_SERVER."""

    def __init__(self, server: str, worker: str, job: str, namespace: str, samples: int) -> None:
        self._url = f"{server.rstrip('/')}/sedna/workers/{quote(worker)}/info"
        self._head = {
            "name": worker,
            "namespace": namespace,
            "ownerName": job,
            "ownerKind": "federatedlearningjob",
            "kind": "train",
        }
        self._samples = samples
        self._started = _now()

    def report(self, round: int, loss: float | None, *, last: bool) -> None:
        """Send a report in a thread of its own; a controller that is not there is only logged."""
        info = {
            "currentRound": round,
            "sampleCount": self._samples,
            "startTime": self._started,
            "updateTime": _now(),
        }
        metrics = {} if loss is None else {"loss": loss}
        message = {
            **self._head,
            "status": "completed" if last else "running",
            "results": [{"format": "", "url": "", "metrics": metrics}],
            "ownerInfo": info,
        }
        self._started = _now()
        threading.Thread(target=self._post, args=(message,), name="local-controller", daemon=True).start()

    def _post(self, message: dict[str, Any]) -> None:
        request = urllib.request.Request(
            self._url, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                response.read()
        except (OSError, urllib.error.URLError) as error:
            log.info("the Local Controller at %s does not answer: %s", self._url, error)


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
