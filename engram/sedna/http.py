"""What the federation port answers beside WebSockets: who is subscribed, and the Local Controller's endpoint.

A Sedna worker reports its progress with `POST {LC_SERVER}/sedna/workers/{name}/info`, and tries five times
over twelve seconds when nobody answers, in every round.
"""

from __future__ import annotations

import http
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.http11 import Response

from engram.federation.messages import Heartbeat

DEFAULT_NAME = "FedAvg"
"""The aggregation that Sedna's workers dial when their code says nothing else, whatever ours computes."""
MOST_BYTES = 256 * 1024
"""Largest report, head included."""
INFO_PATH = re.compile(r"/sedna/workers/([^/?#]{1,253})/info")


def paths_of(aggregation: str) -> Callable[[str], bool]:
    """Return what tells whether a path is the job's: `/` and the aggregation's name as Sedna or we spell it.

    `/TrimmedMean` and `/trimmed-mean` are one; the class of a dotted path counts without its module.
    """
    known = {_plain(aggregation.rpartition(":")[2]), _plain(DEFAULT_NAME)}
    return lambda path: _plain(unquote(path.partition("?")[0].strip("/"))) in known


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def answer(status: http.HTTPStatus, value: Any) -> Response:
    """Return a JSON response."""
    body = json.dumps(value).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)


def clients_response(clients: Sequence[str]) -> Response:
    """Return who is subscribed, as Sedna's server does."""
    return answer(http.HTTPStatus.OK, {"clients": list(clients)})


def forbidden(text: str = "this job's aggregation has another name") -> Response:
    """Return the refusal of an unknown path, which Sedna's server answers so, too."""
    return answer(http.HTTPStatus.FORBIDDEN, {"detail": text})


def unauthorised() -> Response:
    """Return the refusal of a wrong token."""
    return answer(http.HTTPStatus.UNAUTHORIZED, {"detail": "unknown worker or wrong token"})


@dataclass(frozen=True)
class Post:
    """A POST request that is whole."""

    path: str
    body: bytes


def read_post(data: bytes) -> Post | http.HTTPStatus | None:
    """Return the request in `data`, None while it is not all there, or why it cannot be answered."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if len(data) > MOST_BYTES else None
    line, *fields = head.decode("latin-1").split("\r\n")
    parts = line.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    length = headers.get("content-length", "")
    if len(parts) != 3 or not (length.isascii() and length.isdigit()):
        return http.HTTPStatus.LENGTH_REQUIRED
    if len(length) > 9 or int(length) > MOST_BYTES:
        return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Post(parts[1], body[: int(length)]) if len(body) >= int(length) else None


@dataclass(frozen=True)
class Info:
    """What a worker tells its Local Controller after a round."""

    worker: str
    """As the worker calls itself."""
    beat: Heartbeat


def read_info(post: Post) -> Info | http.HTTPStatus:
    """Return a worker's report, or why it is none."""
    path = INFO_PATH.fullmatch(post.path.partition("?")[0])
    if path is None:
        return http.HTTPStatus.NOT_FOUND
    try:
        value = json.loads(post.body)
    except (ValueError, RecursionError):
        return http.HTTPStatus.BAD_REQUEST
    if not isinstance(value, dict):
        return http.HTTPStatus.BAD_REQUEST
    running = str(value.get("status")).lower() == "running"
    beat = Heartbeat("training" if running else "idle", loss=loss_of(value.get("results")))
    return Info(unquote(path[1]), beat)


def loss_of(results: object) -> float | None:
    """Return the newest loss in a report's `results`: what the estimator's `train` returned for one model.

    It may be a number, or a mapping such as Keras' history with `loss`, a number or a list of them.
    """
    if not isinstance(results, list):
        return None
    for part in results:
        found = part.get("metrics") if isinstance(part, dict) else None
        if isinstance(found, dict):
            found = found.get("loss")
        if isinstance(found, list) and found:
            found = found[-1]
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return float(found)
    return None
