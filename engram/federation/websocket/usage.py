"""What this process uses, for heartbeats."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def resident_bytes() -> int:
    """Return the memory of this process that is in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def peak_bytes() -> int:
    """Return the most memory that this process has had in use; 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = [line.split()[1] for line in file if line.startswith("VmHWM:")]
        return int(found[0]) * 1024
    except (OSError, ValueError, IndexError):
        return resident_bytes()


def gpu_bytes() -> int:
    """Return the memory that torch has allocated on the GPU; looks at torch only where it is loaded."""
    torch = sys.modules.get("torch")
    cuda: Callable[[], int] | None = getattr(getattr(torch, "cuda", None), "memory_allocated", None)
    initialised = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    return cuda() if cuda is not None and initialised is not None and initialised() else 0
