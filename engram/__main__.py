"""`python -m engram`: the same as the command `engram`; how the local runner starts its processes."""

from engram.cli import main

if __name__ == "__main__":
    main()
