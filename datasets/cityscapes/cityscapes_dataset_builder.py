"""Cityscapes with segmentation and depth or inverse depth, as a TFDS builder without TensorFlow."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from datasets import checking, preparing
from datasets.cityscapes import classes, mtan_folders, official_files
from datasets.resizing import resize_colours, resize_intrinsics, resize_nearest
from datasets.streaming import StreamingBuilder, tensor

COUNTS = {"train": 2975, "test": 500}
LAYOUTS = ("official", "mtan")
HOMEPAGE = "https://www.cityscapes-dataset.com"
# fx fy cx cy of most of the cameras, for the layout without camera files, and their images.
INTRINSICS = np.array([2262.52, 2265.3017905988554, 1096.98, 513.137])
SHAPE = (1024, 2048)
BYTES_PER_PIXEL = 8


@dataclasses.dataclass(eq=False)
class CityscapesConfig(tfds.core.BuilderConfig):
    """The form of the prepared set; `config` makes one with a matching name.

    Attributes:
      layout: "official" (the downloads) or "mtan" (the preprocessed folders).
      classes: 7 or 19.
      content: of the layout "official", a key of `official_files.PARTS`.
      height: of the frames in pixels.
      width: of the frames in pixels.
    """

    layout: str = "official"
    classes: int = 19
    content: str = "stereo"
    height: int = 128
    width: int = 256

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be 'official' or 'mtan', got {self.layout!r}")
        classes.check_number(self.classes)
        if self.content not in official_files.PARTS:
            names = ", ".join(official_files.PARTS)
            raise ValueError(f"content must be one of {names}, got {self.content!r}")
        if self.layout == "mtan" and self.content != "stereo":
            raise ValueError("content goes with layout=official")
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1 pixel, got {self.height}x{self.width}"
            )


_CONFIGS = [
    CityscapesConfig(name="official19", description="The downloads, 19 classes."),
    CityscapesConfig(name="official7", description="The downloads, 7 classes.", classes=7),
    CityscapesConfig(
        name="mtan19", description="The preprocessed folders, 19 classes.", layout="mtan"
    ),
    CityscapesConfig(
        name="mtan7",
        description="The preprocessed folders, 7 classes.",
        layout="mtan",
        classes=7,
    ),
]


def config(
    layout: str = "official",
    classes: int = 19,
    content: str = "stereo",
    height: int = 128,
    width: int = 256,
) -> CityscapesConfig:
    """Returns the config with a matching name, such as "mtan7" or "official19_depth_256x512".

    Raises:
      ValueError: for an unknown layout, number of classes or content, or a wrong size.
    """
    name = f"{layout}{classes}"
    if content != "stereo":
        name = f"{name}_{content}"
    if (height, width) != (128, 256):
        name = f"{name}_{height}x{width}"
    # TFDS takes no second config of a name that the builder has.
    for known in _CONFIGS:
        if known.name == name:
            return known
    return CityscapesConfig(
        name=name, layout=layout, classes=classes, content=content, height=height, width=width
    )


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Prepares the set from files fetched by hand, if necessary.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder with leftImg8bit/ and the other parts, or with train/ and val/ of the mtan
        layout; by default `downloads/manual` in the builder's data_dir.

    Raises:
      ValueError: in one line, for files that are missing or wrong.
      OSError: in one line, for a full disk.
    """
    preparing.prepare(builder, manual_dir=manual_dir, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(StreamingBuilder):
    """2975 frames to train on and 500 to test on; see README.md next to this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Configs `official*`: unpack leftImg8bit, gtFine, camera, disparity and "
        f"rightImg8bit_trainvaltest.zip of {official_files.DOWNLOADS} into manual_dir. Configs "
        "`mtan*`: put the folders train/ and val/, each with image/ (0..1), label_7/ or label_19/ "
        "(from 0, -1 = void) and depth/ (inverse depth, 0 = missing), into manual_dir."
    )
    BUILDER_CONFIGS = _CONFIGS

    def _info(self) -> tfds.core.DatasetInfo:
        wanted = self.builder_config
        shape = (wanted.height, wanted.width)
        features = {
            "image": tensor((*shape, 3), np.uint8),
            "segmentation": tensor(shape, np.int8),
            "intrinsics": tensor((4,), np.float32),
        }
        if wanted.layout == "mtan":
            # The relative error depends on numbers that half precision rounds too much.
            features["inverse_depth"] = tensor(shape, np.float32)
        elif wanted.content != "segmentation":
            features["depth"] = tensor(shape, np.float16)
            if wanted.content == "stereo":
                features["image_right"] = tensor((*shape, 3), np.uint8)
                features["baseline"] = tfds.features.Tensor(shape=(), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(classes.class_names(wanted.classes))),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of frames of each split."""
        return dict(COUNTS)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        # TFDS's own property refuses an empty folder with several lines.
        root, counts = Path(str(dl_manager._manual_dir)), self.split_sizes()
        wanted = self.builder_config
        if wanted.layout == "mtan":
            mtan_folders.check(root, counts, wanted.classes)
            readings = {
                split: mtan_folders.readings(root, split, count, wanted.classes)
                for split, count in counts.items()
            }
        else:
            found = official_files.find(root, counts, wanted.content)
            official_files.check(root, found, wanted.content)
            readings = {
                split: official_files.readings(root, split, stems, wanted.content, wanted.classes)
                for split, stems in found.items()
            }
        frames = checking.checked(readings)
        return {split: self._generate_examples(items) for split, items in frames.items()}

    def _generate_examples(
        self, frames: Iterator[tuple[int, mtan_folders.Frame | official_files.Frame]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for index, frame in frames:
            yield index, make_example(frame, self.builder_config.height, self.builder_config.width)


def make_example(
    frame: mtan_folders.Frame | official_files.Frame, height: int, width: int
) -> dict[str, np.ndarray]:
    """Returns what is stored of a frame."""
    example = {
        "image": resize_colours(frame.image, height, width),
        "segmentation": resize_nearest(frame.segmentation, height, width),
    }
    if isinstance(frame, mtan_folders.Frame):
        intrinsics = resize_intrinsics(INTRINSICS, SHAPE, height, width)
        inverse = resize_nearest(frame.inverse_depth, height, width)
        return {**example, "intrinsics": intrinsics, "inverse_depth": inverse}
    shape = frame.segmentation.shape
    example["intrinsics"] = resize_intrinsics(frame.intrinsics, shape, height, width)
    if frame.depth is not None:
        example["depth"] = resize_nearest(frame.depth, height, width).astype(np.float16)
    if frame.image_right is not None:
        example["image_right"] = resize_colours(frame.image_right, height, width)
        example["baseline"] = np.asarray(frame.baseline, np.float32)
    return example
