"""`kubectl-engram`, which kubectl runs as `kubectl engram`; the same as `python -m engram_kubectl`."""

from __future__ import annotations

from engram_kubectl.cli import app


def main() -> None:
    """Carry out the command line; never returns."""
    app(prog_name="kubectl engram")


if __name__ == "__main__":
    main()
