from __future__ import annotations

import torch

from engram.learning.seeds import generator, global_generator, seed_of


def test_seed_is_the_same_on_every_machine() -> None:
    assert seed_of(0, "labelled", "trainworker-edge-0", 1, 2, 0) == 6104780368905689845


def test_every_key_counts() -> None:
    seeds = {
        seed_of(0, "a", "w", 1, 2, 3),
        seed_of(1, "a", "w", 1, 2, 3),
        seed_of(0, "b", "w", 1, 2, 3),
        seed_of(0, "a", "v", 1, 2, 3),
        seed_of(0, "a", "w", 2, 2, 3),
        seed_of(0, "a", "w", 1, 3, 3),
        seed_of(0, "a", "w", 1, 2, 4),
        seed_of(0, "a", "w", 12, 3),
        seed_of(0, "a", "w", 1, 23),
    }
    assert len(seeds) == 9


def test_equal_generators_draw_equal_numbers() -> None:
    first, second = generator(3, "x", 1), generator(3, "x", 1)
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


def test_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with global_generator(torch.device("cpu"), 5, "model"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with global_generator(torch.device("cpu"), 5, "model"):
        assert torch.equal(torch.rand(3), inside)


def test_global_generator_draws_what_manual_seed_would_and_troubles_no_absent_device() -> None:
    torch.manual_seed(seed_of(5, "model"))
    expected = torch.rand(3)
    # Where torch keeps, each with a traceback, what to do once a first CUDA device is used.
    waiting = len(torch.cuda._queued_calls)
    with global_generator(torch.device("cpu"), 5, "model"):
        assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == waiting
