"""One's own NumPy arrays, as a TFDS builder without TensorFlow."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from datasets import accounted, examples
from datasets.account import Account
from datasets.cutting import class_type, cut_image, cut_intrinsics, cut_labels, middle, unit
from datasets.examples import Examples, Known
from datasets.streaming import tensor
from mtl_jax.tasks.images import divided, with_depth

BYTES_PER_PIXEL = 8
# An entry that examples may lack -> what to do about it, after "or".
ADVICE = {
    "image_right": "give the examples image_right and baseline",
    "intrinsics": "give the examples intrinsics, the first of train among them",
}


@dataclasses.dataclass(eq=False, kw_only=True)
class ArraysConfig(tfds.core.BuilderConfig):
    """The examples, and the size of the stored images in pixels."""

    # Left out of the text of the config, which TFDS logs.
    examples: Known = dataclasses.field(repr=False)
    source: str
    height: int
    width: int


def config(
    given: Examples,
    source: str = "examples",
    code: str = "",
    height: int | None = None,
    width: int | None = None,
) -> ArraysConfig:
    """Returns the config of examples, named after their source and a digest.

    Args:
      given: the examples, which are not checked yet.
      source: what they come from, `FILE.py:FUNCTION` with its options or a name.
      code: text of that file.
      height: of the stored images in pixels, None for that of the first image.
      width: like `height`.

    Raises:
      ValueError: in one line, for examples that can't be used or a number out of its range.
    """
    found = examples.known(given)
    if height is None or width is None:
        height, width = examples.first_image_size(found)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1 pixel, got {height}x{width}")
    name = re.sub(r"^.*/|\.py(?=:)", "", source)
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", name)[:40]
    return ArraysConfig(
        name=f"{name}-{height}x{width}-{examples.digest(found, source, code)[:12]}",
        description=f"One's own images at {height} x {width} pixels.",
        examples=found,
        source=source,
        height=height,
        width=width,
    )


def prepare(builder: "Builder", manual_dir: object = None) -> None:
    """Prepares the set from its arrays, if necessary, and prints what they hold.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: not used, since nothing is fetched.

    Raises:
      ValueError: in one line, for examples that can't be used; each problem is printed before.
      OSError: in one line, for a full disk.
    """
    del manual_dir
    accounted.prepare(builder, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(accounted.AccountedBuilder[Account]):
    """Images in arrays, with labels for as many of them as there are."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        chosen = self.builder_config
        shapes = forms(chosen)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {name: tensor(shape, dtype) for name, (shape, dtype, _) in shapes.items()}
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(chosen.examples.class_names)),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each split."""
        splits = examples.splits(self.builder_config.examples)
        return {split: len(items) for split, items in splits.items()}

    def known_entries(self) -> tuple[str, ...]:
        """Returns the names of its entries, without intrinsics if the first example has none."""
        names = super().known_entries()
        if self.builder_config.examples.has_cameras:
            return names
        return tuple(name for name in names if name != "intrinsics")

    def advice(self) -> dict[str, str]:
        """Returns how the set can have what it lacks, by the name of the entry."""
        return ADVICE

    def account(self) -> Account:
        """Returns an account of the examples."""
        chosen = self.builder_config
        return Account(
            source=chosen.source,
            setting=f"`dataset`={chosen.source}",
            images=self.split_sizes(),
            class_names=chosen.examples.class_names,
            entries=chosen.examples.labels,
            stored=(chosen.height, chosen.width),
        )

    def readings(
        self, split: str, account: Account
    ) -> Iterator[tuple[dict[str, np.ndarray] | None, list[str]]]:
        """Yields each example, None if it can't be read, and what is wrong with it."""
        chosen = self.builder_config
        items = examples.splits(chosen.examples)[split]
        for number in range(len(items)):
            name = f"{split} example {number}"
            found = examples.read(items, number, name)
            if isinstance(found, str):
                arrays, problems = {}, [found]
            else:
                arrays, problems = examples.check(found, name, chosen.examples)
            example = None
            if "image" in arrays:
                pixels = as_bytes(arrays["image"])
                has_camera = "intrinsics" in arrays
                problems += account.image(split, name, pixels, has_camera=has_camera)
                example = make_example(arrays, chosen)
                account.example(split, number, name, example)
            account.problems += problems
            yield example, problems


def forms(chosen: ArraysConfig) -> dict[str, tuple[tuple[int, ...], type[np.generic], float]]:
    """Returns shape, type and missing value of each array that is stored, by name."""
    size = (chosen.height, chosen.width)
    labels = {
        "segmentation": (size, class_type(len(chosen.examples.class_names)), -1),
        "depth": (size, np.float16, 0),
        "normals": ((*size, 3), np.float16, 0),
        "image_right": ((*size, chosen.examples.channels), np.uint8, 0),
        # The losses of pairs leave out those without a baseline.
        "baseline": ((), np.float32, 0),
    }
    return {
        "image": ((*size, chosen.examples.channels), np.uint8, 0),
        **{name: labels[name] for name in chosen.examples.labels},
        "intrinsics": ((4,), np.float32, 0),
    }


def make_example(arrays: dict[str, np.ndarray], chosen: ArraysConfig) -> dict[str, np.ndarray]:
    """Returns what is stored of an example: its middle, resized.

    Args:
      arrays: those of `examples.check`.
      chosen: which labels there are, and the size.
    """
    size = (chosen.height, chosen.width)
    box = middle(arrays["image"].shape[:2], size)
    example = {}
    for name, (shape, dtype, missing) in forms(chosen).items():
        array = arrays.get(name)
        if array is None:
            example[name] = np.full(shape, missing, dtype)
        elif name == "intrinsics":
            example[name] = cut_intrinsics(array.astype(np.float64), box, size)
        elif name in ("image", "image_right"):
            example[name] = cut_image(as_bytes(array), box, size)
        elif not shape:
            example[name] = array.astype(dtype)
        else:
            part = cut_labels(array, box, size)
            example[name] = (unit(part) if name == "normals" else part).astype(dtype)
    return example


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Returns an image as u8[H, W, C]; floats are from 0 to 1."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    colours, depth = divided(image)
    coded = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)
    return with_depth(coded, depth[..., 0], largest=1.0) if depth.size else coded
