"""A worker whose packets are swallowed for a while: `swallowed SECONDS [late]`, in a network namespace of its
own. `late`: on that connection the aggregator only acknowledges then, and what it says does not come.

Prints the seconds from the end of that to the worker's new connection, and how often it reconnected, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

from engram.federation.messages import Hello
from engram.federation.settings import Settings
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from tests.federation.conftest import Federation, LeastSquares
from tests.federation.websocket.raw import KEY, A, work_at

PORT = 7363
NEWCOMERS = ["INPUT", "-p", "tcp", "--syn", "--dport", str(PORT), "-j", "REJECT"]


def main(seconds: float, late: bool) -> None:
    """Let the worker train while its packets are lost, and go on when it is back."""
    federation = Federation(Settings("job", 7, (A,), (1,)))
    aggregator = federation.aggregator()
    training, back, go_on = threading.Event(), threading.Event(), threading.Event()
    connect = aggregator.connect

    def on_hello(worker: str, hello: Hello, now: float) -> Any:
        if training.is_set():
            back.set()
        return connect(worker, hello, now)

    aggregator.connect = on_hello  # type: ignore[method-assign]
    learner = LeastSquares(A)

    def on_train(order: Any) -> None:
        training.set()
        go_on.wait(300)

    learner.on_train = on_train

    async def run() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[int] = loop.create_future()
        serving = asyncio.create_task(
            serve(
                aggregator,
                host="127.0.0.1",
                port=PORT,
                authenticate=authenticator(KEY, "uid"),
                stop=asyncio.Event(),
                listening=listening.set_result,
            )
        )
        await listening
        working = asyncio.create_task(asyncio.to_thread(work, learner))
        await asyncio.to_thread(training.wait)
        await asyncio.to_thread(swallow, "-A")
        await asyncio.sleep(seconds)
        if late:
            await asyncio.to_thread(hold_back)
        await asyncio.to_thread(swallow, "-D")
        if late:
            await asyncio.to_thread(let_in)
        start = loop.time()
        await asyncio.to_thread(back.wait, 120)
        seconds_later = loop.time() - start
        go_on.set()
        await working
        outcome = await serving
        return {"back": seconds_later, "reconnects": outcome.history.faults.reconnects.get(A, 0)}

    print(json.dumps(asyncio.run(run())))


def work(learner: LeastSquares) -> None:
    """Be the worker."""
    work_at(PORT, A, learner, orphan_seconds=600)


def swallow(change: str) -> None:
    """Begin or end to lose every packet of the federation's port, either way."""
    for port in ("--dport", "--sport"):
        command = ["iptables", change, "INPUT", "-p", "tcp", port, str(PORT), "-j", "DROP"]
        subprocess.run(command, check=True)


def hold_back() -> None:
    """Lose what the aggregator says on the connection that there is, but for what acknowledges; and nobody
    can connect.
    """
    port = of_connection().split()[2].rpartition(":")[2]
    data = ["--tcp-flags", "PSH", "PSH", "--sport", str(PORT), "--dport", port]
    subprocess.run(["iptables", "-A", "INPUT", "-p", "tcp", *data, "-j", "DROP"], check=True)
    subprocess.run(["iptables", "-A", *NEWCOMERS], check=True)


def let_in() -> None:
    """Let the worker connect once all that it has sent is acknowledged."""
    while " unacked:" in of_connection():
        time.sleep(0.01)
    subprocess.run(["iptables", "-D", *NEWCOMERS], check=True)


def of_connection() -> str:
    """Return what the kernel says of the worker's side of the connection."""
    command = ["ss", "-HOtni", "state", "established", "dport", "=", f":{PORT}"]
    (line,) = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return line


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    main(float(sys.argv[1]), "late" in sys.argv[2:])
