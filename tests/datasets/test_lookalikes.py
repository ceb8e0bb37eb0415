"""Images that look the same although their pixels differ."""

import io

import numpy as np
from PIL import Image

from datasets import lookalikes


def scene(seed):
    """A picture of smooth random blobs, u8[48, 64, 3]."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(small.resize((64, 48), Image.Resampling.BICUBIC))


def saved(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_an_image_that_was_saved_anew_is_found():
    train = {f"train {i}": lookalikes.look(scene(i)) for i in range(20)}
    jpeg = saved(scene(7), format="jpeg", quality=70)
    assert np.any(jpeg != scene(7))
    enlarged = np.asarray(Image.fromarray(scene(3)).resize((128, 96), Image.Resampling.BILINEAR))
    others = {"saved": jpeg, "enlarged": enlarged, "new": scene(99)}
    test = {name: lookalikes.look(pixels) for name, pixels in others.items()}
    assert lookalikes.pairs(train, test) == [("train 7", "saved"), ("train 3", "enlarged")]


def test_images_without_contrast_are_not_compared():
    flat = {"a": lookalikes.look(np.full((9, 9, 3), 7, np.uint8))}
    assert lookalikes.pairs(flat, flat) == []
    assert lookalikes.pairs({}, flat) == []
