"""`make fuzz` in small, and that it would notice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from engram.federation import codec
from engram.federation.aggregator import Aggregator
from engram.federation.messages import Hello
from tests.fuzz import corpus, inside, mutate
from tests.fuzz.__main__ import main


def test_twenty_thousand_mutants_do_no_harm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--inputs", "20000", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "20000 mutants, 400 of them over WebSockets" in said
    assert "no crash, no hang, the good workers finished their round" in said
    # Mutants got as far as the aggregator, and every kind of check turned some down.
    for outcome in ("no message", "taken: Update", "rejected: non-finite", "rejected: shape", "401", "101"):
        assert outcome in said
    assert not list(tmp_path.iterdir())


def test_what_raises_anything_else_is_written_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    receive = Aggregator.receive

    def careless(aggregator: Aggregator, worker: str, message: Any, now: float) -> Any:
        if type(message).__name__ == "Heartbeat" and message.memory_bytes != 10**8:
            raise OverflowError("too much")
        return receive(aggregator, worker, message, now)

    monkeypatch.setattr(Aggregator, "receive", careless)
    assert main(["--inputs", "20000", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "FAILED" in said
    (path,) = tmp_path.iterdir()
    assert str(path) in said
    if "OverflowError" in said:  # and not the end of the real server
        data = bytes.fromhex(path.read_text())
        assert type(codec.Decoder[Any](codec.UP).decode(data)).__name__ == "Heartbeat"


def test_what_hangs_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "HANG_SECONDS", 0.05)

    def endless(data: Any) -> int:
        while True:
            pass

    monkeypatch.setattr(codec, "size_in_start", endless)
    with pytest.raises(inside.Failure, match="Hung") as caught:
        inside.Inside(0).run(100)
    assert caught.value.target.startswith("message")


def test_mutants_are_the_seeds() -> None:
    good = corpus.encoded(corpus.hello_of(corpus.WORKER))
    made = [[mutate.OF_MESSAGES[3](random.Random(seed), good) for _ in range(20)] for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("message", [*corpus.UP, *corpus.DOWN], ids=lambda message: type(message).__name__)
def test_what_mutants_are_made_of_is_good(message: Any) -> None:
    decoded = codec.Decoder[Any](codec.UP | codec.DOWN).decode(corpus.encoded(message))
    assert type(decoded) is type(message)
    if isinstance(message, Hello):
        assert decoded == message
