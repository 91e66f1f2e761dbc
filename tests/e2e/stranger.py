"""A worker as KubeEdge Sedna's library makes one, without that library and without engram.

What it sends, when it waits, what it ignores, and whom it reports to are the library's. A pod runs the text
of this file.

Its training adds its step to every weight, so everybody can tell what comes of it.
"""

import json
import os
import urllib.request
from typing import Any

from websockets.sync.client import connect

NAME = os.environ["WORKER_NAME"]
STEP = 1.0 + int(NAME.rpartition("-")[2])


def report(current: int) -> None:
    """Tell the Local Controller; any answer but 200 ends the program."""
    body = {
        "name": NAME,
        "namespace": os.environ["NAMESPACE"],
        "ownerName": os.environ["JOB_NAME"],
        "ownerKind": "job",
        "kind": "train",
        "status": "running",
        "ownerInfo": {"currentRound": current, "sampleCount": 10},
    }
    request = urllib.request.Request(
        f"{os.environ['LC_SERVER']}/sedna/workers/{NAME}/info",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        print("local controller", answer.status, flush=True)


def main() -> None:
    """Train until told that it is enough."""
    weights: Any = [[[0.0, 0.0], [0.0, 0.0]], [0.0]]
    address = f"ws://{os.environ['AGG_IP']}:{os.environ['AGG_PORT']}/FedAvg"
    with connect(address, max_size=1 << 24, ping_interval=None) as socket:
        socket.send(json.dumps({"type": "subscribe", "client_id": NAME}))
        socket.recv()
        current, flag = 1, "continue"
        while flag == "continue":
            matrix, bias = weights
            weights = [[[x + STEP for x in row] for row in matrix], [x + STEP for x in bias]]
            data = {"num_samples": 10, "weights": weights}
            message = {"type": "update_weight", "client": NAME, "data": data, "job_name": "job"}
            socket.send(json.dumps(message))
            answer = json.loads(socket.recv())
            while answer["type"] != "recv_weight":
                answer = json.loads(socket.recv())
            weights, flag = answer["data"]["weights"], answer["data"]["exit_flag"]
            print("round", current, json.dumps(weights), flush=True)
            report(current)
            current += 1


if __name__ == "__main__":
    main()
