"""Good messages and handshakes, as bytes: what mutants are made of."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np

from engram.federation.codec import Encoder
from engram.federation.messages import (
    Ack,
    ClassCounts,
    Consolidate,
    Consolidated,
    Credit,
    Evaluate,
    Evaluation,
    Finish,
    Heartbeat,
    Hello,
    LabelCounts,
    Log,
    Message,
    NoCredit,
    Offer,
    Reject,
    Tensors,
    Train,
    Update,
    Wait,
    Welcome,
)
from engram.federation.versions import PROTOCOL
from engram.federation.websocket.wire import PATH, SUBPROTOCOL, WORKER_HEADER, bearer

KEY = b"a key of the tests"
WORKER, OTHER = "trainworker-edge-0", "trainworker-edge-1"
RNG = np.random.default_rng(0)
WEIGHTS: Tensors = {
    "head.weight": RNG.normal(size=(2, 6)).astype(np.float32),
    "head.bias": np.zeros(2, np.float32),
    "steps": np.array(3, np.int64),
}
"""Of the model that `tests.federation.conftest.Head` begins with."""


def hello_of(worker: str) -> Hello:
    """Return the hello that the aggregator of the tests takes."""
    labels = LabelCounts({0: 5, 1: 7}, {1: 2})
    return Hello(worker, 1, PROTOCOL, "job", "split", 100, "cpu", (1, 1), labels=labels, endpoint="host:7363")


UPDATE = Update(1, 1, 10, WEIGHTS, {"loss": 0.5, "steps": 3.0}, {"sum": np.ones(6, np.float32)})
UP: Sequence[Message] = (
    hello_of(WORKER),
    UPDATE,
    Update(1, 1, 0, metrics={"loss": 0.0}),
    Consolidated(1, 100, {"sums": np.ones(6, np.float32)}, b'{"1": 0.5}', {"exemplars": 3.0}),
    Evaluation(1, 0, ClassCounts({0: 3, 1: 4}, {0: 10, 1: 10, 2: 10}, {2: 1})),
    Heartbeat("training", 0.5, 1.25, 10**8, 0),
    Offer(1, "Update", 1, 1, 400),
    Log("RuntimeError: broken\nTraceback", 1, "Crashed"),
)
DOWN: Sequence[Message] = (
    Welcome("job", 1, 1, 10.0, b"state", resend=True),
    Train(1, 1, WEIGHTS, (0, 1), {"teacher": {"w": np.ones((3, 3), np.float32)}}),
    Consolidate(1, WEIGHTS, (0, 1)),
    Evaluate(1, 0, WEIGHTS, (0, 1)),
    Ack(1, 1),
    Reject("shape", "head.weight is another", 1, 1),
    Credit(1),
    NoCredit(1, again=True),
    Wait(),
    Finish("complete"),
)


def encoded(message: Message) -> bytes:
    """Return a message's bytes on a fresh connection."""
    return Encoder().encode(message).join()


def handshake(worker: str, token: str, path: str = PATH, extra: Mapping[str, str] | None = None) -> bytes:
    """Return the HTTP request that opens a worker's connection."""
    headers = {
        "Host": "127.0.0.1:7363",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(bytes(range(16))).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
        "Authorization": bearer(token),
        WORKER_HEADER: worker,
        **(extra or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """Return a client's WebSocket frame; its mask is zeros, so that the payload stays as it is."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = bytes([0x80 | 126]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload
