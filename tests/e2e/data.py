"""Small data sets for jobs on nodes: images that a network can tell apart after a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

PIXELS = 64
TRAIN, TEST = 10, 2
"""Images of each class."""


def write_signs(folder: Path, classes: int, seed: int) -> None:
    """Write PNG files as `image-folder` wants them: each class has a pattern, `seed` decides the noise.

    Nothing is in their way when they are written a second time.
    """
    draw = np.random.default_rng(seed)
    for label in range(classes):
        pattern = np.random.default_rng(1000 + label).integers(0, 256, (8, 8, 3))
        for part, count in (("train", TRAIN), ("test", TEST)):
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = draw.integers(-40, 41, (8, 8, 3))
                pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
                image = Image.fromarray(pixels).resize((PIXELS, PIXELS), Image.Resampling.NEAREST)
                image.save(folder / part / str(label) / f"{number}.png")


def write_digits(file: Path) -> Path:
    """Write scikit-learn's digits as an .npz file of under 150 kB, small enough for a ConfigMap."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
    test = np.arange(len(labels)) % 5 == 0
    np.savez_compressed(
        file,
        train_images=pixels[~test],
        train_labels=labels[~test],
        test_images=pixels[test],
        test_labels=labels[test],
    )
    return file
