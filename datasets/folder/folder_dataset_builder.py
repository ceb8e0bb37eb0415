"""A folder of photos with masks, depth and normals, as a TFDS builder without TensorFlow."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from datasets import accounted, checking
from datasets.cutting import Box, class_type, cut_image, cut_intrinsics, cut_labels, middle
from datasets.folder import labels, layout
from datasets.folder.account import INTRINSICS_ADVICE, FolderAccount
from datasets.folder.cameras import Stated
from datasets.folder.labels import DEPTH, FILES, Options, Reading
from datasets.folder.masks import LARGEST_NUMBER, VOID
from datasets.streaming import tensor
from mtl_jax.tasks.images import CHANNELS, COLOURS
from mtl_jax.tasks.normals import normals_of_depth

BYTES_PER_PIXEL = 8
# Metres.
SENSOR_RANGE = 10.0
# In degrees, from a telephoto lens to a very wide one.
FIELDS_OF_VIEW = (1, 170)
# An entry that a folder may lack -> what to do about it, after "or".
ADVICE = {
    "normals": "compute them from depth as `dataset`=folder:normals=depth",
    "image_right": "put right views into images_right/, under the names of their images",
    "intrinsics": INTRINSICS_ADVICE,
}
# Smallest side in pixels of images with normals from depth: the width of the largest window in
# which planes are fitted.
SMALLEST_WITH_NORMALS = 17


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """The files, what their numbers mean, and the size of the stored images in pixels."""

    # Left out of the text of the config, which TFDS logs: it may have thousands of files.
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
    normals: str = FILES,
    field_of_view: float = 0.0,
    baseline: float = 0.0,
    channels: int = 3,
    sensor_range: float = SENSOR_RANGE,
) -> FolderConfig:
    """Returns the config of a folder, named after it and a digest of its files and of the options.

    Args:
      path: folder with images/; see README.md next to this file.
      height: of the stored images in pixels, None for `layout.usual_size`.
      width: like `height`.
      depth_scale: what whole numbers of depth are divided by to give metres.
      ignore_label: number of the pixels of a mask without a label.
      normals: "files", or "depth" to compute those of images with depth but no file of normals.
      field_of_view: horizontal, in degrees, of photos whose camera is not known otherwise; 0 if it
        is not known either.
      baseline: metres between the cameras of stereo pairs, unless the file of cameras has it.
      channels: of the images: 3; 1 to make them grey; or 4 to add the depth in sensor_depth/.
      sensor_range: metres that the largest number of that channel stands for.

    Raises:
      ValueError: in one line, for a folder that can't be used or a number out of its range.
    """
    if path is None:
        raise ValueError("set `folder` to the folder that holds images/")
    options = Options(
        ignore_label=ignore_label,
        depth_scale=depth_scale,
        stated=Stated(field_of_view, baseline),
        normals=normals,
        channels=channels,
        sensor_range=sensor_range,
    )
    _check(options)
    found = layout.find(Path(path).expanduser().resolve(), with_sensor=channels > COLOURS)
    _check_ignored(found, ignore_label)
    if height is None or width is None:
        height, width = layout.usual_size(found)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1 pixel, got {height}x{width}")
    if baseline and not found.stereo:
        raise ValueError(f"baseline={baseline:g} is for right views, and there is no images_right/")
    if normals == DEPTH and "depth" not in found.entries:
        raise ValueError("normals=depth is for images with depth, and there are no files in depth/")
    if normals == DEPTH and min(height, width) < SMALLEST_WITH_NORMALS:
        raise ValueError(
            f"normals=depth needs a height and width of at least {SMALLEST_WITH_NORMALS} pixels, "
            f"got {height}x{width}"
        )
    return FolderConfig(
        name=_name(found, options, height, width),
        description=f"The images of a folder at {height} x {width} pixels.",
        files=found,
        options=options._replace(num_classes=len(found.class_names), coding=found.coding),
        height=height,
        width=width,
    )


def _check(options: Options) -> None:
    """Refuses options out of their ranges."""
    field_of_view, baseline = options.stated
    if not 0 < options.depth_scale < math.inf:
        raise ValueError(f"depth_scale must be a positive number, got {options.depth_scale:g}")
    if options.channels not in CHANNELS:
        raise ValueError(f"channels must be 1, 3 or 4, got {options.channels}")
    if not 0 < options.sensor_range < math.inf:
        raise ValueError(f"sensor_range must be a positive number, got {options.sensor_range:g}")
    if options.sensor_range != SENSOR_RANGE and options.channels <= COLOURS:
        raise ValueError(f"sensor_range={options.sensor_range:g} is for channels=4")
    if not 0 <= options.ignore_label <= LARGEST_NUMBER:
        raise ValueError(f"ignore_label must be in 0..{LARGEST_NUMBER}, got {options.ignore_label}")
    if options.normals not in (FILES, DEPTH):
        raise ValueError(f"normals must be {FILES} or {DEPTH}, got {options.normals}")
    low, high = FIELDS_OF_VIEW
    if field_of_view and not low <= field_of_view <= high:
        raise ValueError(f"field_of_view must be in {low}..{high} degrees, got {field_of_view:g}")
    low, high = checking.BASELINE
    if baseline and not low <= baseline <= high:
        raise ValueError(f"baseline must be in {low:g}..{high:g} metres, got {baseline:g}")


def _check_ignored(found: layout.Layout, ignore_label: int) -> None:
    """Refuses a class for the number of the pixels without a label, which would never be seen."""
    if found.coding is None or found.coding.classes is None:
        return
    classes = found.coding.classes
    given = classes.get(ignore_label, VOID)
    if given != VOID:
        unused = next(number for number in range(LARGEST_NUMBER, -1, -1) if number not in classes)
        raise ValueError(
            f"ignore_label={ignore_label} marks pixels without a label, but "
            f"{found.coding.source} gives that number the class {found.class_names[given]}: set "
            f"ignore_label to a number that no mask holds, such as {unused}, or write ignore there"
        )


def _name(found: layout.Layout, options: Options, height: int, width: int) -> str:
    """Returns the name of a config: of the folder, and all on which the stored examples depend."""
    field_of_view, baseline = options.stated
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", found.root.name)[:40]
    parts = [name, f"{height}x{width}", found.digest[:12]]
    parts += [f"scale{options.depth_scale:g}", f"ignore{options.ignore_label}"]
    parts += ["normals_of_depth"] if options.normals == DEPTH else []
    parts += [f"view{field_of_view:g}"] if field_of_view else []
    parts += [f"baseline{baseline:g}"] if baseline else []
    parts += [f"channels{options.channels}"] if options.channels != COLOURS else []
    parts += [f"range{options.sensor_range:g}"] if options.sensor_range != SENSOR_RANGE else []
    return "-".join(parts)


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
    accounted.prepare(builder, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(accounted.AccountedBuilder[FolderAccount]):
    """Photos, with labels for as many of them as there are files; see README.md."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {
        "1.0.0": "First version.",
        "1.1.0": "Cameras and right views. Intrinsics are 0 where they are not known.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        chosen = self.builder_config
        shape = (chosen.height, chosen.width)
        features = {
            "image": tensor((*shape, chosen.options.channels), np.uint8),
            **{
                entry: tensor((*shape, 3) if entry == "normals" else shape, dtype)
                for entry, dtype in dtypes(chosen).items()
            },
            "intrinsics": tensor((4,), np.float32),
        }
        if chosen.files.stereo:
            features["image_right"] = tensor((*shape, chosen.options.channels), np.uint8)
            features["baseline"] = tfds.features.Tensor(shape=(), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(chosen.files.class_names)),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of images of each split."""
        return {split: len(items) for split, items in self.builder_config.files.items.items()}

    def known_entries(self) -> tuple[str, ...]:
        """Returns the names of its entries, without intrinsics if no camera is known."""
        names = super().known_entries()
        stated = self.builder_config.options.stated
        if stated.field_of_view or layout.has_cameras(self.builder_config.files):
            return names
        return tuple(name for name in names if name != "intrinsics")

    def advice(self) -> dict[str, str]:
        """Returns how the set can have what it lacks, by the name of the entry."""
        if self.builder_config.options.channels > COLOURS:
            return ADVICE | {"image_right": "leave out channels=4, which is for single images"}
        return ADVICE

    def account(self) -> FolderAccount:
        """Returns an account of the folder."""
        chosen = self.builder_config
        return FolderAccount.of(
            chosen.files,
            tuple(dtypes(chosen)),
            (chosen.height, chosen.width),
            sensor_range=chosen.options.sensor_range,
        )

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
            if reading.views is not None:
                example = make_example(reading, chosen)
                account.example(split, number, item.image.name, example)
            yield example, problems


def dtypes(chosen: FolderConfig) -> dict[str, type[np.generic]]:
    """Returns the types in which the labels of a folder are stored, by name."""
    known = {
        "segmentation": class_type(chosen.options.num_classes),
        "depth": np.float16,
        "normals": np.float16,
    }
    has_normals = "normals" in chosen.files.entries or chosen.options.normals == DEPTH
    # Depth learned from stereo pairs is judged by depth, if any image has it.
    has_depth = "depth" in chosen.files.entries or chosen.files.stereo
    has = {"segmentation": "segmentation" in chosen.files.entries}
    has |= {"depth": has_depth, "normals": has_normals}
    return {entry: dtype for entry, dtype in known.items() if has[entry]}


def make_example(reading: Reading, chosen: FolderConfig) -> dict[str, np.ndarray]:
    """Returns what is stored of an image: its middle, resized.

    Labels that it lacks are missing at every pixel. Without a right view the baseline is 0.
    """
    assert reading.views is not None
    views, size = reading.views, (chosen.height, chosen.width)
    box = middle(views.image.shape[:2], size)
    example = {
        "image": cut_image(views.image, box, size),
        **{
            entry: _stored(reading.labels.get(entry), entry, dtype, box, size)
            for entry, dtype in dtypes(chosen).items()
        },
        "intrinsics": cut_intrinsics(views.intrinsics, box, size),
    }
    if not views.known_by:
        example["intrinsics"] = np.zeros(4, np.float32)
    if reading.lacks_normals and "depth" in reading.labels and views.known_by:
        example["normals"] = _normals_of_depth(example["depth"], example["intrinsics"])
    if chosen.files.stereo:
        right = views.right
        example["image_right"] = (
            np.zeros_like(example["image"]) if right is None else cut_image(right, box, size)
        )
        example["baseline"] = np.asarray(views.baseline, np.float32)
    return example


def _stored(
    labels: np.ndarray | None,
    entry: str,
    dtype: type[np.generic],
    box: Box,
    size: tuple[int, int],
) -> np.ndarray:
    if labels is None:
        shape = (*size, 3) if entry == "normals" else size
        return np.full(shape, VOID if entry == "segmentation" else 0, dtype)
    return cut_labels(labels, box, size).astype(dtype)


def _normals_of_depth(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Returns the normals f16[H, W, 3] that `--normals_source=depth` learns from such depth."""
    batch = {"depth": jnp.asarray(depth, jnp.float32)[None], "intrinsics": intrinsics[None]}
    return np.asarray(_compiled(batch)[0]).astype(np.float16)


@jax.jit
def _compiled(batch: dict[str, jax.Array]) -> jax.Array:
    return normals_of_depth(batch, "depth")
