"""Which version of engram's code a figure comes from: a digest of the modules that decide it.

The whole repository would be too much: a new algorithm, or a word in a comment, would throw hundreds of runs
away. What counts are the modules of data, learning and aggregation that an algorithm's own module and the
learners import, directly or not, without comments and docstrings.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fcil.variants import ROOT
from engram.spec.dotted import is_dotted

PACKAGES = ("engram.data", "engram.learning", "engram.federation.aggregation", "benchmarks.fcil.tried")
"""What decides a figure. That transports and rounds do not is what tests of bit identity are there for."""

ROOTS = (
    "engram.data",
    "engram.federation.aggregation",
    "engram.learning.global_learner",
    "engram.learning.local_learner",
)
REGISTRY = "engram.learning.algorithms"
"""Imports every algorithm, and decides nothing itself."""


@functools.cache
def code_digest(algorithm: str, root: Path = ROOT) -> str:
    """Return the digest of the code behind an algorithm in the checkout at `root`: `module:Class`, or one
    that is built in.
    """
    from engram.learning.algorithms import BUILT_IN

    module = algorithm.partition(":")[0] if is_dotted(algorithm) else BUILT_IN[algorithm].__module__
    return digest_of(module, root)


def digest_of(module: str, root: Path) -> str:
    """Return the digest of `module` and the `ROOTS` with all that they import of `PACKAGES`, below `root`.

    Raises FileNotFoundError where there is no such module.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(_parsed((module, *ROOTS), root).items()):
        digest.update(f"{name}\n{_essence(tree)}\n".encode())
    return digest.hexdigest()[:16]


def closure(modules: tuple[str, ...], root: Path) -> set[str]:
    """Return the modules with all of `PACKAGES` that they import, anywhere in their text."""
    return set(_parsed(modules, root))


def _parsed(modules: tuple[str, ...], root: Path) -> dict[str, ast.Module]:
    """Return the first module, which may be anywhere, and what of `PACKAGES` it and the others lead to."""
    found: dict[str, ast.Module] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        counts = name == modules[0] or (name.startswith(PACKAGES) and _exists(name, root))
        if name in found or name == REGISTRY or not counts:
            continue
        found[name] = ast.parse(_file(name, root).read_text(encoding="utf-8"))
        waiting += _imports(found[name])
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield what may be a module: `from a.b import c` names a.b, and a.b.c if that is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _essence(tree: ast.Module) -> str:
    """Return the syntax tree without docstrings, as text; they are taken out of it."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _file(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(name: str, root: Path) -> bool:
    return _file(name, root).is_file()
