"""What the operator costs on a real control plane, 1,000 jobs at once: API writes, memory, idle CPU.

    python benchmarks/operator.py [--jobs N] [--quick] [--json FILE]

The measurement is the package operator_load. Python looks for the standard library's `operator` in the folder
of the script first: so that folder leaves `sys.path` when this file is the script, and this file stands aside
when the script is another benchmark beside it.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _without_this_folder() -> list[str]:
    return [entry for entry in sys.path if os.path.abspath(entry) != _HERE]


if __name__ == "operator":
    _before, sys.path = sys.path, _without_this_folder()
    del sys.modules[__name__]
    import operator  # noqa: F401 (the standard library's: whoever imports gets what stands in sys.modules)

    sys.path = _before

if __name__ == "__main__":
    sys.path = [os.path.dirname(_HERE), *_without_this_folder()]
    from benchmarks.operator_load.command import main

    sys.exit(main())
