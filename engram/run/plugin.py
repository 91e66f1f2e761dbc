"""Commands that need a cluster: this package has no Kubernetes client, so a process carries them out.

That is the plug-in `engram_kubectl`, which kubectl starts in the same way as `kubectl engram`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence

from engram.errors import ConfigurationError

PLUGIN = "engram_kubectl"


def run_plugin(command: str, arguments: Sequence[str], options: Mapping[str, str]) -> int:
    """Carry out `kubectl engram COMMAND ARGUMENTS` with those options that are set; return its exit code.

    Raises ConfigurationError where this installation has no plug-in.
    """
    if importlib.util.find_spec(PLUGIN) is None:
        raise ConfigurationError(
            f"{PLUGIN} is not part of this installation", remedy="pip install 'engram[kubectl]'"
        )
    words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    with subprocess.Popen([sys.executable, "-m", PLUGIN, command, *words, "--", *arguments]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # Ctrl-C reaches the plug-in as well, which ends itself
