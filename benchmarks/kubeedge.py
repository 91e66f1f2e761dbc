"""KubeEdge's nodes beside kubelet's: how soon a job trains, and what a cut cable costs.

    python benchmarks/kubeedge.py [--repeat 3] [--json FILE] [--page docs/kubeedge.md]

Starts a three-node cluster of each kind, one after the other, and on it the same job several times: from
apply to the first closed round; then the cable of edge1 is cut for 45 s and mended. Figures are medians,
the smallest and the largest in brackets. Needs root and what `make e2e-kubeedge` needs; one run of each takes
five minutes.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    # This folder has an operator.py, which would stand in the way of the standard library's.
    sys.path = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p) != _HERE)]
    from benchmarks.kubeedge_nodes import main

    sys.exit(main((__doc__ or "").split("\n", 1)[0]))
