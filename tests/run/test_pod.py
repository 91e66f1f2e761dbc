"""A process that is told to stop ends within seconds, whatever its main thread does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engram.run.pod import FROM_THE_START, TOO_EARLY, TOO_SLOW

LONG_STEP = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"
"""Minutes in one call of C, in which no handler of Python's runs."""


@pytest.mark.process
@pytest.mark.parametrize(
    ("role", "orderly", "sentence"),
    [
        ("worker", "", TOO_EARLY),
        ("worker", "pod.orderly(0.1)", TOO_SLOW),
        ("reporter", "", FROM_THE_START),
    ],
    ids=["early", "slow", "reporter"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_75_in_the_middle_of_a_long_step(
    tmp_path: Path, role: str, orderly: str, sentence: str, number: signal.Signals
) -> None:
    last_word = tmp_path / "termination"
    code = f"""
from engram.run.pod import this_pod
pod = this_pod("{role}")
pod.listen()
{orderly}
print("ready", flush=True)
{LONG_STEP}
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ENGRAM_TERMINATION_LOG": str(last_word)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors == f"engram: {sentence}\n"
    assert last_word.read_text() == sentence
