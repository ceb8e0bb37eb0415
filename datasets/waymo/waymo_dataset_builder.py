"""Waymo Open Dataset v2, segmentation and sparse depth, as a TFDS builder without TensorFlow."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from datasets import checking, preparing
from datasets.resizing import resize_colours, resize_intrinsics, resize_nearest
from datasets.streaming import StreamingBuilder, tensor
from datasets.waymo import lidar, segments
from datasets.waymo.classes import CLASS_NAMES
from datasets.waymo.segments import CAMERAS, Drive, Frame

HOMEPAGE = "https://waymo.com/open"
BYTES_PER_PIXEL = 4
VOID = -1


@dataclasses.dataclass(eq=False, kw_only=True)
class WaymoConfig(tfds.core.BuilderConfig):
    """The frames that are stored; `config` makes one with a matching name.

    Attributes:
      camera: one of `CAMERAS`.
      every: each Nth frame of a segment; 0: the frames with segmentation labels.
      height: of the stored images in pixels.
      width: of the stored images in pixels.
      manual_dir: folder with training/ and validation/; None: `downloads/manual` in the builder's
        data_dir.
    """

    camera: str
    every: int
    height: int
    width: int
    manual_dir: Path | None = None


def config(
    camera: str = "front",
    every: int = 0,
    height: int | None = None,
    width: int | None = None,
    manual_dir: str | Path | None = None,
) -> WaymoConfig:
    """Returns the config with a matching name, such as "front-labelled-320x480".

    Raises:
      ValueError: for an unknown camera, or a number or size out of its range.
    """
    if camera not in CAMERAS:
        raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {camera}")
    if every < 0:
        raise ValueError(f"every must be 0, for the labelled frames, or more, got {every}")
    if height is None or width is None:
        # A quarter of Waymo's 1280 x 1920, and of the 886 x 1920 of the cameras at the sides.
        height, width = (224 if camera.startswith("side") else 320), 480
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1 pixel, got {height}x{width}")
    frames = f"every{every}" if every else "labelled"
    return WaymoConfig(
        name=f"{camera}-{frames}-{height}x{width}",
        description=f"The camera {camera} at {height} x {width} pixels.",
        camera=camera,
        every=every,
        height=height,
        width=width,
        manual_dir=None if manual_dir is None else Path(manual_dir).expanduser(),
    )


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Prepares the set from files fetched by hand, if necessary.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder with training/ and validation/; None for that of the config.

    Raises:
      ValueError: in one line, for files that are missing or wrong.
      OSError: in one line, for a full disk.
    """
    if manual_dir is not None:
        builder.builder_config.manual_dir = Path(manual_dir)
    if not Path(builder.data_dir).exists():
        builder.split_sizes()  # raises an error that says which files belong into the folder
    preparing.prepare(builder, manual_dir=builder.root, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(StreamingBuilder):
    """Frames of one camera; see README.md next to this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Download the Parquet files of the tables {', '.join(segments.TABLES)} of Waymo Open "
        f"Dataset v2 ({HOMEPAGE}) into training/TABLE/ and validation/TABLE/ of manual_dir."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.builder_config.height, self.builder_config.width)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor((*shape, 3), np.uint8),
                    "segmentation": tensor(shape, np.int8),
                    "depth": tensor(shape, np.float16),
                    "intrinsics": tensor((4,), np.float32),
                }
            ),
            homepage=HOMEPAGE,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(CLASS_NAMES)),
        )

    @property
    def root(self) -> Path:
        """Returns the folder of the files."""
        default = Path(self.data_dir_root) / "downloads" / "manual"
        return self.builder_config.manual_dir or default

    @functools.cached_property
    def drives(self) -> dict[str, list[Drive]]:
        """Returns the frames of each split by segment.

        Raises:
          ValueError: in one line, for files that are missing or wrong, or a split without frames.
        """
        chosen = self.builder_config
        camera, found = CAMERAS[chosen.camera], segments.find(self.root)
        drives = {
            split: [Drive(each, segments.times(each, camera, chosen.every)) for each in members]
            for split, members in found.items()
        }
        for split, each in drives.items():
            if not any(drive.times for drive in each):
                raise ValueError(
                    f"{self.root / segments.SPLITS[split]} has no frame of the camera "
                    f"{chosen.camera} with segmentation labels: download camera_segmentation of "
                    "other segments, or choose each 10th frame by `dataset`=waymo:every=10"
                )
        return drives

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of frames per split, counted in the files if it is not prepared."""
        if self.info.splits:
            return {split: info.num_examples for split, info in self.info.splits.items()}
        return {split: sum(len(d.times) for d in each) for split, each in self.drives.items()}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        camera = CAMERAS[self.builder_config.camera]
        frames = checking.checked(
            {
                split: (pair for drive in drives for pair in segments.read(drive, camera))
                for split, drives in self.drives.items()
            }
        )
        return {split: self._generate_examples(found) for split, found in frames.items()}

    def _generate_examples(
        self, frames: Iterator[Frame]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        chosen = self.builder_config
        for number, frame in enumerate(frames):
            yield number, make_example(frame, chosen.height, chosen.width)


def make_example(frame: Frame, height: int, width: int) -> dict[str, np.ndarray]:
    """Returns what is stored of a frame."""
    full = (frame.image.shape[0], frame.image.shape[1])
    labels = np.full((height, width), VOID, np.int8)
    if frame.segmentation is not None:
        labels = resize_nearest(frame.segmentation, height, width)
    return {
        "image": resize_colours(frame.image, height, width),
        "segmentation": labels,
        "depth": lidar.depth_map(*frame.points, full, height, width).astype(np.float16),
        "intrinsics": resize_intrinsics(frame.intrinsics, full, height, width),
    }
