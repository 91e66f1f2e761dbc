"""Compiles engram/federation/_kernel.c while engram is built or installed, where there is a compiler.

The compiler is `$CC`, else cc, gcc or clang, else the one of PyPI's `ziglang`, which needs nothing of the
system. Without one, or without Python's headers, numpy does the sums: the same bits, later.
HATCH_BUILD_NO_HOOKS=true leaves the kernel out.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "engram/federation/_kernel.c"
TARGET = "engram/federation/_kernel.abi3.so"
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-s")
SAME_BITS = ("-ffp-contract=off",)
"""A fused multiply-add rounds once where numpy rounds twice."""


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled kernel to a wheel, or puts it beside its source for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one of this platform; on failure say why, and build a pure one."""
        if self.target_name != "wheel":
            return
        target = Path(self.root, TARGET)
        if problem := compile_kernel(Path(self.root, SOURCE), target):
            self.app.display_warning(f"engram is built without its compiled kernel: {problem}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(TARGET)


def compile_kernel(source: Path, target: Path) -> str:
    """Compile `source` to `target`; return what was wrong, or nothing. A failure leaves no older `target`."""
    partial = target.with_suffix(".partial")
    problem = _compile(source, partial)
    if problem:
        target.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    else:
        partial.replace(target)
    return problem


def _compile(source: Path, target: Path) -> str:
    if os.name != "posix" or sys.platform == "darwin":
        return f"it is for Linux, this is {sys.platform}"
    compiler = compiler_of(os.environ.get("CC", ""))
    if not compiler:
        return f"no compiler: none of {', '.join(COMPILERS)} is here, nor PyPI's ziglang"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"no Python.h in {headers}: on Debian 'apt-get install python3-dev'"
    command = [*compiler, *OPTIONS, *SAME_BITS, f"-I{headers}", str(source), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as problem:
        return f"{shlex.join(compiler)}: {problem.strerror}"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"{shlex.join(compiler)}: {lines[0] if lines else f'exit code {done.returncode}'}"


def compiler_of(named: str) -> list[str]:
    """Return the command of `named`, as `$CC` has it, or of the first compiler that is here, or []."""
    if named:
        return shlex.split(named)
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        # zig adds checks for undefined behaviour on its own, and a library for them.
        return [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"]
    return []
