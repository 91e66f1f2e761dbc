"""How long a federated round takes beside what the machine's loopback allows, and what it costs.

    python benchmarks/federation.py [--quick] [--only PARAMETERS] [--compression NAMES] [--peers]
                                    [--json FILE] [--page FILE]

Aggregator and workers are processes of their own that talk over loopback and train nothing. A round is
measured from the first byte of its broadcast to its closed sum; a figure is the median over rounds, the
first left out. The limit is measured in the same run: every model down and up in 1 MiB writes, and one
weighted sum. `--compression none,float16,int8,topk` measures these beside each other. `--peers` makes an
environment with Flower in it and measures its gRPC server and its SuperLink, too. `--page` puts the table
into a page such as README.md. The measurement is the package federation_load.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    # This folder has an operator.py, which would stand in the way of the standard library's.
    sys.path = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p) != _HERE)]
    from benchmarks.federation_load.command import main

    sys.exit(main())
