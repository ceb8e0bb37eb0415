"""A predictor whose answers follow from the colours of each pixel, and photos for it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from tests import fakes
from tests.fakes import TASKS


def predict(images, **options):
    """Red decides the class, green is depth in centimetres, blue turns the normal to the right."""
    images = np.asarray(images)
    batch = images if images.ndim == 4 else images[None]
    red, green, blue = np.moveaxis(batch.astype(np.float32), -1, 0)
    angle = blue / 255 * (np.pi / 2)
    results = {
        "segmentation": (red // 86).astype(np.int32),
        "depth": green / 100,
        "normals": np.stack([np.sin(angle), 0 * angle, -np.cos(angle)], axis=-1),
    }
    return {name: x if images.ndim == 4 else x[0] for name, x in results.items()}


def predictor(**attributes):
    """The same with the attributes of a `Predictor`."""
    made = SimpleNamespace(
        tasks=tuple(TASKS),
        class_names=fakes.CLASSES,
        image_size=(12, 16),
        channels=3,
        focal_length=0.8,
    )
    vars(made).update(attributes)

    class Callable(SimpleNamespace):
        def __call__(self, images, **options):
            return predict(images, **options)

    return Callable(**vars(made))


def colours(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A smooth photo uint8[height, width, 3]."""
    small = np.random.default_rng(seed).integers(1, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def save(path: Path, height: int = 18, width: int = 24, *, seed: int = 0, **options) -> np.ndarray:
    """Writes a photo and returns its pixels."""
    pixels = colours(height, width, seed=seed)
    Image.fromarray(pixels).save(path, **options)
    return pixels
