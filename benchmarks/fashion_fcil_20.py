"""Which algorithm forgets least and learns most when labels are few: the benchmark of docs/benchmark.md.

    python benchmarks/fashion_fcil_20.py [--benchmark NAME] [--quick] [--only 'replay;icarl']
        [--ratios 0.05,0.2] [--seeds 10,11] [--keep DIR] [--json FILE] [--page FILE] [--confirm]

Runs every variant of benchmarks/fcil/variants.py at every label ratio with five seeds, through
`engram run --vary` (in one process each, two at a time), and compares them in pairs over seeds. All take the
same number of local steps. With `--keep` it may be run in pieces: what is finished is not run again, unless
its job or the code behind it has changed. Ends with 1 when a figure misses its bar.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    # This folder has an operator.py, which would stand in the way of the standard library's.
    sys.path = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p) != _HERE)]
    from benchmarks.fcil.command import main

    sys.exit(main())
