from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram.errors import ConfigurationError
from engram.learning.augment import Shift, build_augmentation, strong


def shifted(image: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A shift spelled out, with the edge repeated."""
    height, width = image.shape[-2:]
    result = torch.empty_like(image)
    for r in range(height):
        for c in range(width):
            source_row = min(max(r + rows, 0), height - 1)
            source_column = min(max(c + columns, 0), width - 1)
            result[..., r, c] = image[..., source_row, source_column]
    return result


def test_every_image_is_one_of_the_nine_shifts_and_all_occur() -> None:
    images = torch.arange(2 * 3 * 4, dtype=torch.float32).view(1, 2, 3, 4).repeat(200, 1, 1, 1)
    wanted = [shifted(images[0], r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    made = Shift(1)(images, torch.Generator().manual_seed(0))
    found = [next(i for i, w in enumerate(wanted) if torch.equal(image, w)) for image in made]
    assert set(found) == set(range(9))


def test_mirror_turns_about_half_of_them() -> None:
    images = torch.arange(5, dtype=torch.float32).view(1, 1, 1, 5).repeat(400, 1, 1, 1)
    made = Shift(0, mirror=True)(images, torch.Generator().manual_seed(0))
    turned = int((made[:, 0, 0, 0] == 4).sum())
    assert 150 < turned < 250
    assert torch.equal(made[made[:, 0, 0, 0] == 4][0], images[0].flip(2))


@pytest.mark.parametrize("name", ["none", "shift1", "crop-flip"])
def test_same_generator_same_images_and_the_input_stays(name: str) -> None:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    augmentation = build_augmentation(name)
    first = augmentation(images, torch.Generator().manual_seed(2))
    second = augmentation(images, torch.Generator().manual_seed(2))
    assert first.shape == images.shape
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert torch.equal(first, images) is (name == "none")


def test_no_images_are_no_problem() -> None:
    assert Shift(1)(torch.zeros(0, 1, 8, 8), torch.Generator()).shape == (0, 1, 8, 8)


def test_own_augmentation_by_dotted_path(module_folder: Path) -> None:
    (module_folder / "own_augmentation.py").write_text(
        "class Negative:\n    def __call__(self, images, generator):\n        return -images\n"
    )
    augmentation = build_augmentation("own_augmentation:Negative")
    assert torch.equal(augmentation(torch.ones(1, 1, 2, 2), torch.Generator()), -torch.ones(1, 1, 2, 2))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"augmentation.*shift2.*shift1"):
        build_augmentation("shift2")
    with pytest.raises(ConfigurationError, match="not callable"):
        build_augmentation("builtins:object")


class TestStrong:
    """The augmentation of pseudo-labelled images."""

    def test_a_square_holds_the_mean_and_the_rest_moves_gains_and_is_noisy(self) -> None:
        images = torch.full((6, 2, 20, 20), 3.0)
        images[:, :, 0, 0] = 403.0  # the mean becomes 4
        made = strong(images, torch.Generator().manual_seed(0))
        hole = made == images.mean(dim=(1, 2, 3), keepdim=True)
        assert hole.sum(dim=(1, 2, 3)).tolist() == [2 * 6 * 6] * 6
        for image in hole:
            rows, columns = image[0].nonzero().unbind(1)
            assert rows.max() - rows.min() == columns.max() - columns.min() == 5
        untouched = made[~hole & (made < 100)]
        assert 0.8 * 3 - 0.6 < untouched.min() < untouched.max() < 1.2 * 3 + 0.6
        assert untouched.std() > 0.1

    def test_each_image_has_its_own_draw_and_the_input_stays(self) -> None:
        images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        images[1] = images[0]
        before = images.clone()
        made = strong(images, torch.Generator().manual_seed(2))
        assert torch.equal(images, before)
        assert not torch.equal(made[0], made[1])
        assert torch.equal(made, strong(images, torch.Generator().manual_seed(2)))

    def test_no_images_are_no_problem(self) -> None:
        assert strong(torch.zeros(0, 3, 8, 8), torch.Generator()).shape == (0, 3, 8, 8)
