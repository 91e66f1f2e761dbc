"""The edge of the process: here exceptions become one line on stderr and an exit code, never a traceback.

Exit code 42: what was typed or where it points must change; 75: try again; 1: anything else.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from engram.errors import ConfigurationError, EngramError

if TYPE_CHECKING:
    from engram_kubectl.connection import Target

EXTRA = "engram[kubectl]"
PACKAGES = ("aiohttp", "cryptography", "kubernetes")
"""What only that extra brings."""
INTERRUPTED, BROKEN_PIPE = 130, 141
"""128 and the signal's number, as other programs end."""
MARK = "engram: error: "


def carry_out(body: Callable[[Target], Awaitable[int]], kubeconfig: str, context: str, namespace: str) -> int:
    """Run a command's body on the cluster that was named; return the exit code."""
    try:
        return asyncio.run(_run(body, kubeconfig, context, namespace))
    except EngramError as error:
        print(f"{MARK}{error}", file=sys.stderr, flush=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        print(f"{MARK}{package} is not installed: pip install '{EXTRA}'", file=sys.stderr, flush=True)
        return ConfigurationError.exit_code
    except BrokenPipeError:
        # Our output's reader left (`kubectl engram logs ... | head`): Python must not flush into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the process's edge: nothing above could say it better
        traceback.print_exception(error)
        print(f"engram: unexpected error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1


async def _run(
    body: Callable[[Target], Awaitable[int]], kubeconfig: str, context: str, namespace: str
) -> int:
    from engram_kubectl.connection import Target

    return await body(Target(kubeconfig, context, namespace))
