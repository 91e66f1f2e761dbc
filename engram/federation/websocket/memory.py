"""Freed memory stays with the process while pieces of messages come and go.

The C library hands a freed block of a quarter MiB back to the system, which zeroes the next one page by page:
for every piece, which costs ten times as much as copying it. It learns better by itself once a large block
is freed; this says so from the start, with the values that it would arrive at. What one thread frees another
one may use: on its own the library keeps memory for each of them, and a model more.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of mallopt(3), in glibc; other C libraries have no such function, or ignore it."""
LARGEST_BLOCK = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Set the thresholds for this process."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_BLOCK)
    mallopt(M_ARENA_MAX, 1)
