"""`python -m engram`, the same as the command `engram`; how the local runner starts its processes.

The commands of pods hear signals before anything else is imported (`engram.run.pod` says why).
"""

import sys


def main() -> None:
    """Entry point of the `engram` command."""
    if sys.argv[1:2] in (["aggregator"], ["worker"]):
        from engram.run.pod import this_pod

        this_pod("aggregator" if sys.argv[1] == "aggregator" else "worker").listen()
    from engram.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
