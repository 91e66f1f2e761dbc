"""A worker in a process of its own whose training step blocks: `blocked_worker PORT NAME HOW SECONDS`.

HOW is `released` (as a step in PyTorch, which lets other threads run) or `held` (as an extension that keeps
the interpreter's lock, so that not even the network thread runs).
"""

from __future__ import annotations

import ctypes
import sys
import time

from engram.federation.messages import Train
from tests.federation.conftest import LeastSquares
from tests.federation.websocket.raw import work_at


def main(port: str, name: str, how: str, seconds: str) -> None:
    """Work for the aggregator on that port; the first round blocks."""
    learner = LeastSquares(name)

    def block(order: Train) -> None:
        if (order.task, order.round) != (1, 1):
            return
        if how == "held":
            ctypes.PyDLL(None).usleep(int(1e6 * float(seconds)))
        else:
            time.sleep(float(seconds))

    learner.on_train = block
    work_at(int(port), name, learner, orphan_seconds=600)


if __name__ == "__main__":
    main(*sys.argv[1:])
