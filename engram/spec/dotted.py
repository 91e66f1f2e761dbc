"""Dotted paths, `package.module:Name`: how a job file names code of the user's own."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engram.errors import ConfigurationError, EngramError
from engram.spec.base import DOTTED_PATH

FRAMES_SHOWN = 3
ENGRAM = str(Path(__file__).parents[1]) + os.sep
INSTALLED = f"{os.sep}site-packages{os.sep}"


def is_dotted(name: str) -> bool:
    """Return whether `name` is a dotted path rather than the name of something built in."""
    return re.fullmatch(DOTTED_PATH, name, re.ASCII) is not None


def load_dotted(path: str, field: str) -> Any:
    """Import `package.module:Name` and return the object.

    `field` is where the path was written, such as `spec.algorithm.name`. Raises ConfigurationError when the
    module does not import (with the last frames of the user's own traceback) or lacks the name.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything, and a script may exit
        raise ConfigurationError(
            f"{path} does not import: {shortened_traceback(error)}",
            field=field,
            remedy=f"make `python -c 'import {module_name}'` work in the same environment "
            "(on a cluster: in the image)",
        ) from error
    if hasattr(module, name):
        return getattr(module, name)
    registered = _registered(name)
    if registered is None:
        raise ConfigurationError(f"{path}: module {module_name} has no {name}", field=field)
    return registered


def _registered(name: str) -> Any:
    """Return what the user's own code has registered as `name` in Sedna's ClassFactory, None without it."""
    factory = getattr(sys.modules.get("sedna.common.class_factory"), "ClassFactory", None)
    kinds: dict[str, dict[str, Any]] = getattr(factory, "__registry__", {})
    return next((found[name] for found in kinds.values() if name in found), None)


@contextmanager
def own_code(path: str, field: str) -> Iterator[None]:
    """Turn what code of the user's own, named `path` at `field`, raises inside the block into an error that
    says so: trying again would not help. For a built-in name, and for exceptions of engram's own (also those
    that only end a round early) or of the machine (memory, files), nothing changes.

    Raises ConfigurationError with the user's own traceback, shortened.
    """
    try:
        yield
    except (EngramError, MemoryError, OSError):
        raise
    except Exception as error:  # the user's own code: anything may be raised
        if not is_dotted(path) or type(error).__module__.partition(".")[0] == "engram":
            raise
        raise ConfigurationError(
            f"{path} failed: {shortened_traceback(error)}", field=field, remedy="mend that code"
        ) from error


def shortened_traceback(error: BaseException) -> str:
    """Return the error with its last frames that belong neither to the import machinery nor to engram.

    Frames of installed packages are left out where any others are: the user's line is what must change.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(ENGRAM)
    ]
    shown = [frame for frame in frames if INSTALLED not in frame.filename] or frames
    places = "".join(f"\n  {f.filename}:{f.lineno} in {f.name}: {f.line}" for f in shown[-FRAMES_SHOWN:])
    return f"{type(error).__name__}: {error}{places}"
