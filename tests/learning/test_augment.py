from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram.errors import ConfigurationError
from engram.learning.augment import Shift, build_augmentation


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
