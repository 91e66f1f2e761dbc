from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.ports import free_port

FIRST = 19_000
"""Where everybody here begins to look: tests that run beside these choose higher ports."""
CHOOSE = f"""
import random
from tests.cluster import ports
random.randrange = lambda first, last: {FIRST}
print(ports.free_port(), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.randrange", lambda first, last: FIRST)


@contextmanager
def another_process() -> Iterator[int]:
    """A process that chooses a port, and lives meanwhile."""
    command, pipe, folder = [sys.executable, "-c", CHOOSE], subprocess.PIPE, Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("\n")


def test_a_chosen_port_is_chosen_by_nobody_else_until_its_chooser_ends() -> None:
    mine = free_port()
    with another_process() as theirs:
        assert theirs > mine
        assert free_port() > theirs
    with another_process() as again:
        assert again == theirs


def test_a_port_with_a_server_is_not_chosen_and_a_chosen_one_takes_a_server() -> None:
    with another_process() as theirs, socket.create_server(("127.0.0.1", theirs)):
        pass
    with socket.create_server(("127.0.0.1", theirs)):
        assert free_port() > theirs
