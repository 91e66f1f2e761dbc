"""The edge of every engram process: here exceptions become a line on stderr and an exit code.

The supervisor reads a failed child's sentence back from its log: `message_in` finds what `report` wrote.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable

from engram.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    EngramError,
    MemoryShortageError,
    RetryError,
)
from engram.run.pod import Pod

ERROR_MARK = "engram: error: "
"""Begins the sentence of an EngramError: a clean failure that would repeat itself."""

CRASH_MARK = "engram: unexpected error: "
"""Begins the line of any other exception: a crash, worth another try."""

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended before there was anything to resume (128 + SIGINT)."""

BROKEN_PIPE = 141
"""128 + SIGPIPE, as other programs end when their output is cut off."""

EXTRAS = {"torch": "train", "sklearn": "train", "PIL": "train", "jinja2": "report", "matplotlib": "report"}
"""Optional packages and the extra of engram that brings them."""

OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|CUDA error: out of memory", re.IGNORECASE)


def translate(error: BaseException) -> BaseException:
    """Return the EngramError that `error` amounts to (memory, disk, missing extra), else `error` itself."""
    if isinstance(error, EngramError):
        return error
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))
    ):
        return MemoryShortageError(
            "out of memory",
            remedy="lower training.batchSize, the size of the model or the number of workers on this "
            "machine, or give it more memory; then continue with --resume",
        )
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
        package = (error.name or "").partition(".")[0]
        return ConfigurationError(
            f"{package} is not installed", remedy=f"pip install 'engram[{EXTRAS[package]}]'"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return CheckpointError(f"{where}the disk is full: make room; then continue with --resume")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES) and error.filename:
        remedy = "give permission, or name a directory that can be written with --out"
        return ConfigurationError(f"{error.filename}: {error.strerror}", remedy=remedy)
    return error


def report(error: BaseException, *, typed: bool) -> int:
    """Say what went wrong on stderr and return the exit code.

    `typed`: the command was typed by a person, so that bad data count as bad input (42) and what is neither
    bad input nor an interruption is 1; the pods' commands keep the code of each error.
    """
    error = translate(error)
    if isinstance(error, EngramError):
        print(f"{ERROR_MARK}{error}", file=sys.stderr, flush=True)
        return exit_code(error, typed=typed)
    if isinstance(error, BrokenPipeError):
        # Our output's reader left (`engram metrics ... | head`): Python must not flush into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        print("engram: interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    where = _keep_traceback(error) if typed else ""
    if not typed:
        traceback.print_exception(error)
    kind = type(error).__name__
    hint = f" (traceback: {where})" if where else ""
    print(f"{CRASH_MARK}{kind}: {error}{hint}", file=sys.stderr, flush=True)
    return 1


def sentence_of(error: BaseException) -> str:
    """Return what went wrong in one sentence: what `report` says, without its mark."""
    known = translate(error)
    return str(known) if isinstance(known, EngramError) else f"{type(known).__name__}: {known}"


def reason_of(error: BaseException) -> str:
    """Return why the process ends, as a value of `Reason`; empty: its exit code says enough."""
    known = translate(error)
    return known.reason if isinstance(known, EngramError) else ""


def exit_code(error: EngramError, *, typed: bool) -> int:
    """Return what a process ends with after `error`."""
    if not typed:
        return error.exit_code
    if isinstance(error, ConfigurationError | DataError | CheckpointError):
        return ConfigurationError.exit_code
    return error.exit_code if isinstance(error, RetryError) else 1


def carry_out(body: Callable[[], int], pod: Pod | None = None, *, lifeline: bool = False) -> int:
    """Run a command's body and return the exit code; errors become one line on stderr.

    Args:
        body: the command.
        pod: of a command of the pods: it leaves its last word there.
        lifeline: end with the process that started this one.
    """
    if lifeline:
        end_with_parent()
    try:
        code = int(body())
    except (Exception, KeyboardInterrupt) as error:  # the process's edge: nothing above could say it better
        return end(error, pod)
    if pod is not None:
        pod.leave(code, "")
    return code


def end(error: BaseException, pod: Pod | None) -> int:
    """Say what went wrong, on stderr and to the pod, and return the exit code."""
    code = report(error, typed=pod is None)
    if pod is not None:
        pod.leave(code, sentence_of(error), reason_of(error))
    return code


def message_in(log: str) -> tuple[str, bool]:
    """Return the last error sentence in a process's log, and whether it was a clean failure.

    Both empty and False when the process left none (it was killed).
    """
    clean, crash = log.rfind(ERROR_MARK), log.rfind(CRASH_MARK)
    if clean < 0 and crash < 0:
        return "", False
    if clean > crash:
        return log[clean + len(ERROR_MARK) :].strip(), True
    return log[crash + len(CRASH_MARK) :].strip(), False


def end_with_parent() -> None:
    """End this process at once when its parent goes, however that happens: stdin is a pipe from the parent.

    The kernel closes the pipe even when the parent is killed with SIGKILL, on every POSIX system; the process
    group goes with us, so that a data loader's processes do not stay either.
    """
    threading.Thread(target=_watch_stdin, name="lifeline", daemon=True).start()


def _watch_stdin() -> None:
    while os.read(0, 4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a temporary file and return its path, empty if even that fails."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix=time.strftime("engram-error-%Y%m%d-%H%M%S-"), suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return ""
    return path
