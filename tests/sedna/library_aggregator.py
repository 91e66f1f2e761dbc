"""KubeEdge's aggregator; run by the interpreter that has the library.

    SEDNA_PYTHON library_aggregator.py PORT ROUNDS WORKERS

It prints `ended` when it has seen its workers off.
"""

import os
import sys

port, rounds, workers = sys.argv[1:]
os.environ.update(AGG_BIND_IP="127.0.0.1", AGG_BIND_PORT=port)

from sedna.service.server import AggregationServer  # noqa: E402

server = AggregationServer("FedAvg", exit_round=int(rounds), participants_count=int(workers))
server.WAIT_TIME = 1  # how often it looks whether it is done; 15 s otherwise
server.start()
print("ended", flush=True)
