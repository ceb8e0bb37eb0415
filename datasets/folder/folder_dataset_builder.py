"""A folder of photos with masks, depth and normals, as a TFDS builder without TensorFlow."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from datasets import accounted
from datasets.folder import labels, layout
from datasets.folder.account import FolderAccount
from datasets.folder.labels import Options
from datasets.folder.masks import VOID
from datasets.resizing import resize_intrinsics, resize_nearest
from datasets.streaming import tensor

BYTES_PER_PIXEL = 8
# Of photos that do not say their focal length: the horizontal field of view in radians.
FIELD_OF_VIEW = math.radians(60)
LARGEST_LABEL = 65535
# The largest of a mask that is stored in 8 bits.
MOST_SMALL = 127


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """The files, what their numbers mean, and the size of the stored images in pixels."""

    # TFDS logs the config, which has thousands of files.
    files: layout.Layout = dataclasses.field(repr=False)
    options: Options
    height: int
    width: int


def config(
    path: str | Path | None = None,
    height: int | None = None,
    width: int | None = None,
    depth_scale: float = 1000.0,
    ignore_label: int = 255,
) -> FolderConfig:
    """Returns the config of a folder, named after it and a digest of its files and of the options.

    Args:
      path: folder with images/; see README.md next to this file.
      height: of the stored images in pixels, None for `layout.usual_size`.
      width: like `height`.
      depth_scale: what whole numbers of depth are divided by to give metres.
      ignore_label: number of the pixels of a mask without a label.

    Raises:
      ValueError: in one line, for a folder that can't be used or a number out of its range.
    """
    if path is None:
        raise ValueError("set `folder` to the folder that holds images/")
    if not 0 < depth_scale < math.inf:
        raise ValueError(f"depth_scale must be a positive number, got {depth_scale:g}")
    if not 0 <= ignore_label <= LARGEST_LABEL:
        raise ValueError(f"ignore_label must be in 0..{LARGEST_LABEL}, got {ignore_label}")
    found = layout.find(Path(path).expanduser().resolve())
    if height is None or width is None:
        height, width = layout.usual_size(found)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1 pixel, got {height}x{width}")
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", found.root.name)[:40]
    chosen = f"-scale{depth_scale:g}-ignore{ignore_label}"
    return FolderConfig(
        name=f"{name}-{height}x{width}-{found.digest[:12]}{chosen}",
        description=f"The images of a folder at {height} x {width} pixels.",
        files=found,
        options=Options(len(found.class_names), ignore_label, depth_scale),
        height=height,
        width=width,
    )


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Prepares the set from the files of the folder, if necessary, and prints what they hold.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: not used, since the config knows the folder.

    Raises:
      ValueError: in one line, for files that can't be used; each problem is printed before.
      OSError: in one line, for a full disk.
    """
    del manual_dir
    chosen = builder.builder_config
    pixels = sum(builder.split_sizes().values()) * chosen.height * chosen.width
    accounted.prepare(builder, bytes_needed=pixels * BYTES_PER_PIXEL)


class Builder(accounted.AccountedBuilder[FolderAccount]):
    """Photos, with labels for as many of them as there are files; see README.md."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        chosen = self.builder_config
        shape = (chosen.height, chosen.width)
        features = {
            "image": tensor((*shape, 3), np.uint8),
            **{
                entry: tensor((*shape, 3) if entry == "normals" else shape, dtype)
                for entry, dtype in dtypes(chosen).items()
            },
            "intrinsics": tensor((4,), np.float32),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(chosen.files.class_names)),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of images of each split."""
        return {split: len(items) for split, items in self.builder_config.files.items.items()}

    def account(self) -> FolderAccount:
        """Returns an account of the folder."""
        chosen = self.builder_config
        return FolderAccount.of(chosen.files, (chosen.height, chosen.width))

    def readings(
        self, split: str, account: FolderAccount
    ) -> Iterator[tuple[dict[str, np.ndarray] | None, list[str]]]:
        """Yields an example of each image, None if it can't be read, and what is wrong with it."""
        chosen = self.builder_config
        if split == "train" and chosen.files.problems:
            yield None, list(chosen.files.problems)
        for number, item in enumerate(chosen.files.items[split]):
            reading = labels.read(item, chosen.options)
            problems = account.read(split, item, reading)
            example = None
            if reading.image is not None:
                example = make_example(reading.image, reading.labels, reading.focal_length, chosen)
                account.example(split, number, item.image.name, example)
            yield example, problems


def dtypes(chosen: FolderConfig) -> dict[str, type[np.generic]]:
    """Returns the types in which the labels of a folder are stored, by name."""
    small = chosen.options.num_classes <= MOST_SMALL + 1
    known = {
        "segmentation": np.int8 if small else np.int32,
        "depth": np.float16,
        "normals": np.float16,
    }
    return {entry: known[entry] for entry in chosen.files.entries}


def make_example(
    image: np.ndarray,
    known: dict[str, np.ndarray],
    focal_length: float | None,
    chosen: FolderConfig,
) -> dict[str, np.ndarray]:
    """Returns what is stored of an image: its middle, resized.

    Labels that it lacks are missing at every pixel.

    Args:
      image: u8[H, W, 3].
      known: its labels, as in `labels.Reading`.
      focal_length: in pixels, None for `FIELD_OF_VIEW`.
      chosen: which labels there are, and the size.
    """
    height, width = chosen.height, chosen.width
    full = image.shape[:2]
    top, left, rows, columns = middle(full, height, width)
    # Bilinear with antialiasing, as `resize_image`, and faster with photos of many megapixels.
    resized = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BILINEAR, box=(left, top, left + columns, top + rows)
    )
    example = {"image": np.asarray(resized)}
    for entry, dtype in dtypes(chosen).items():
        stored = np.full(
            (height, width, 3) if entry == "normals" else (height, width),
            VOID if entry == "segmentation" else 0,
            dtype,
        )
        if entry in known:
            part = known[entry][top : top + rows, left : left + columns]
            stored = resize_nearest(part, height, width).astype(dtype)
        example[entry] = stored
    focal = focal_length or full[1] / 2 / math.tan(FIELD_OF_VIEW / 2)
    centre = ((full[1] - 1) / 2 - left, (full[0] - 1) / 2 - top)
    camera = np.array([focal, focal, *centre])
    example["intrinsics"] = resize_intrinsics(camera, (rows, columns), height, width)
    return example


def middle(shape: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of an image's middle with another aspect ratio.

    Args:
      shape: height and width of the image.
      height: over `width`, the aspect ratio of the largest part that is wanted.
      width: see `height`.
    """
    rows, columns = shape
    if rows * width > columns * height:
        kept = max(1, round(columns * height / width))
        return (rows - kept) // 2, 0, kept, columns
    kept = max(1, round(rows * width / height))
    return 0, (columns - kept) // 2, rows, kept
