"""Dotted paths, `package.module:Name`: how a job file names code of the user's own."""

from __future__ import annotations

import importlib
import re
import traceback
from pathlib import Path
from typing import Any

from engram.errors import ConfigurationError
from engram.spec.base import DOTTED_PATH

FRAMES_SHOWN = 3
ENGRAM = str(Path(__file__).parents[1])


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
    except Exception as error:  # the module is the user's own code: anything may be raised
        raise ConfigurationError(
            f"{path} does not import: {shortened_traceback(error)}",
            field=field,
            remedy=f"make `python -c 'import {module_name}'` work in the same environment",
        ) from error
    if not hasattr(module, name):
        raise ConfigurationError(f"{path}: module {module_name} has no {name}", field=field)
    return getattr(module, name)


def shortened_traceback(error: BaseException) -> str:
    """Return the error with its last frames that belong neither to the import machinery nor to engram."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(ENGRAM)
    ]
    places = "".join(f"\n  {f.filename}:{f.lineno} in {f.name}: {f.line}" for f in frames[-FRAMES_SHOWN:])
    return f"{type(error).__name__}: {error}{places}"
