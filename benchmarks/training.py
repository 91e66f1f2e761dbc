"""Local training beside its floor: a bare PyTorch loop on the same network, batches and forward passes.

    python benchmarks/training.py [--quick] [--only NAME,NAME] [--json FILE] [--page FILE]

Five workers train rounds of task 2 (old classes, exemplars, teachers and helpers are there) through the same
`LocalLearner` that pods run, on random images of the shape of real ones. The floor of an algorithm makes, in
every step, as many forward passes over as many images as the algorithm was seen to make, with and without
gradient, then one backward pass, clip and SGD step; it samples, augments, moves and exchanges nothing. Where
workers can train together (`engram run --batched`), a second federation does. All take turns within one
process, and a figure is the median over rounds: the ratios are worth more than the milliseconds. Two
algorithms stand beside what a step of the design's prototype took on another machine.

On the CPU milliseconds are processor time on one thread. Where there is a CUDA device they are wall time, the
floor runs in the same precision, once more as a CUDA graph (nothing left for the host to do), and there are
larger networks and the card's use as its driver reports it. The measurement is the package training_load.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded
    # This folder has an operator.py, which would stand in the way of the standard library's.
    sys.path = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p) != _HERE)]
    from benchmarks.training_load.command import main

    sys.exit(main())
