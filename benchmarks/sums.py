"""What the aggregator's passes over an update take, compiled and by numpy, in turn.

    python benchmarks/sums.py [--parameters 1000000] [--repeat 50]

Medians in milliseconds, in this process, on a model of sixteen tensors: the largest magnitude of each tensor,
an update that is added to the exact sum, and the mean that is taken of it. Takes a second or two.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    # This folder has an operator.py, which would stand in the way of the standard library's.
    sys.path = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p) != _HERE)]
    from benchmarks.federation_load.sums import main

    main((__doc__ or "").split("\n", 1)[0])
