"""NYU-Depth V2 with segmentation, depth and normals, as a TFDS builder without TensorFlow."""

import dataclasses
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import tensorflow_datasets as tfds

from datasets import checking, preparing, threads
from datasets.nyu_depth_v2 import classes, labeled_mat, mtan_folders
from datasets.nyu_depth_v2.frame import INTRINSICS, SHAPE, Frame
from datasets.resizing import resize_colours, resize_intrinsics, resize_nearest
from datasets.streaming import StreamingBuilder, tensor
from mtl_jax.tasks import geometry

URL = f"http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/{labeled_mat.FILENAME}"

# Windows of the plane fits at 480x640: 25 pixels are wide enough to average the sensor's noise.
NORMALS_RADII = (12, 6, 3)

# After compression a frame takes about 9 bytes per pixel, of 12.
BYTES_PER_PIXEL = 9


@dataclasses.dataclass(eq=False)
class NyuDepthV2Config(tfds.core.BuilderConfig):
    """The form of the prepared set; `config` makes one with a matching name.

    Attributes:
      layout: "labeled" (the official .mat file) or "mtan" (the preprocessed folders).
      classes: 13 or, of the official file, 40.
      height: of the frames in pixels.
      width: of the frames in pixels.
    """

    layout: str = "labeled"
    classes: int = 13
    height: int = 288
    width: int = 384

    def __post_init__(self):
        if self.layout not in ("labeled", "mtan"):
            raise ValueError(f"layout must be 'labeled' or 'mtan', got {self.layout!r}")
        allowed = (13, 40) if self.layout == "labeled" else (13,)
        if self.classes not in allowed:
            raise ValueError(
                f"classes of the layout {self.layout!r} must be "
                f"{' or '.join(map(str, allowed))}, got {self.classes}"
            )
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1 pixel, got {self.height}x{self.width}"
            )


_CONFIGS = [
    NyuDepthV2Config(name="labeled", description="The official file, 13 classes."),
    NyuDepthV2Config(name="labeled40", description="The official file, 40 classes.", classes=40),
    NyuDepthV2Config(name="mtan", description="The preprocessed folders.", layout="mtan"),
]


def config(
    layout: str = "labeled", classes: int = 13, height: int = 288, width: int = 384
) -> NyuDepthV2Config:
    """Returns the config with a matching name, such as "labeled" or "labeled40_96x128".

    Raises:
      ValueError: for an unknown layout, number of classes or size.
    """
    name = layout if classes == 13 else f"{layout}{classes}"
    if (height, width) != (288, 384):
        name = f"{name}_{height}x{width}"
    # TFDS takes no second config of a name that the builder has.
    for known in _CONFIGS:
        if known.name == name:
            return known
    return NyuDepthV2Config(name=name, layout=layout, classes=classes, height=height, width=width)


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Downloads and prepares the set if necessary; leaves nothing behind on failure.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder with nyu_depth_v2_labeled.mat, or with train/ and val/ of the mtan
        layout; by default `downloads/manual` in the builder's data_dir.

    Raises:
      ValueError: in one line, for files that are missing, incomplete or wrong.
      OSError: in one line, for a failed download, an unreadable file or a full disk.
    """
    preparing.prepare(builder, manual_dir=manual_dir, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(StreamingBuilder):
    """The 1449 labelled frames in the official split; see README.md next to this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Configs `labeled*`: put nyu_depth_v2_labeled.mat into manual_dir, or let it be "
        "downloaded. Configs `mtan*`: put the folders train/ and val/, each with image/ (0..1), "
        "label/ (0..12, -1 = void), depth/ (metres) and normal/ (unit, towards the camera), into "
        "manual_dir."
    )
    BUILDER_CONFIGS = _CONFIGS

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.builder_config.height, self.builder_config.width)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor((*shape, 3), np.uint8),
                    "segmentation": tensor(shape, np.int8),
                    "depth": tensor(shape, np.float16),
                    "normals": tensor((*shape, 3), np.float16),
                    "intrinsics": tensor((4,), np.float32),
                }
            ),
            homepage="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                class_names=list(classes.class_names(self.builder_config.classes))
            ),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of frames of each split."""
        return {split: len(indices) for split, indices in classes.split_indices().items()}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        wanted = self.builder_config
        if wanted.layout == "mtan":
            counts, root = self.split_sizes(), _manual_dir(dl_manager)
            mtan_folders.check(root, counts)
            readings = {s: mtan_folders.readings(root, s, count) for s, count in counts.items()}
        else:
            path = _manual_dir(dl_manager) / labeled_mat.FILENAME
            if not path.is_file():
                path = self._download(dl_manager)
            labeled_mat.check(path)
            readings = {
                split: labeled_mat.readings(path, numbers, wanted.classes)
                for split, numbers in classes.split_indices().items()
            }
        frames = checking.checked(readings)
        return {split: self._generate_examples(found) for split, found in frames.items()}

    def _generate_examples(
        self, frames: Iterator[tuple[int, Frame]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        return threads.in_order(self._example, frames)

    def _example(self, numbered: tuple[int, Frame]) -> tuple[int, dict[str, np.ndarray]]:
        index, frame = numbered
        return index, make_example(frame, self.builder_config.height, self.builder_config.width)

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Path:
        cached = (Path(dl_manager.download_dir) / self.name).rglob(f"*{Path(URL).suffix}")
        try:
            if not any(cached):
                # TFDS would try for minutes before it reports that there is no network.
                urllib.request.urlopen(
                    urllib.request.Request(URL, method="HEAD"), timeout=20
                ).close()
            return Path(dl_manager.download(URL))
        except Exception as error:
            wrong = "wrong checksum" in str(error)
            detail = " ".join(str(getattr(error, "reason", error)).split())[:120]
            reason = "its checksum is wrong" if wrong else detail
            raise OSError(
                f"can't download {URL} ({reason}): put {labeled_mat.FILENAME} "
                f"({labeled_mat.SIZE:,} bytes) by hand into {_manual_dir(dl_manager)}, or set "
                "`manual_dir` to the folder that has it"
            ) from error


def make_example(frame: Frame, height: int, width: int) -> dict[str, np.ndarray]:
    """Returns what is stored of a frame; normals come from the depth before it is resized."""
    intrinsics = resize_intrinsics(INTRINSICS, SHAPE, *frame.depth.shape)
    normals = frame.normals
    if normals is None:
        normals = np.asarray(_normals_from_depth(frame.depth, intrinsics))
    return {
        "image": resize_colours(frame.image, height, width),
        "segmentation": resize_nearest(frame.segmentation, height, width),
        "depth": resize_nearest(frame.depth, height, width).astype(np.float16),
        "normals": resize_nearest(normals, height, width).astype(np.float16),
        "intrinsics": resize_intrinsics(INTRINSICS, SHAPE, height, width),
    }


@jax.jit
def _normals_from_depth(depth: jax.Array, intrinsics: jax.Array) -> jax.Array:
    return geometry.normals_from_depth(depth, intrinsics, radii=NORMALS_RADII)[0]


def _manual_dir(dl_manager: tfds.download.DownloadManager) -> Path:
    # TFDS's own property refuses an empty folder with several lines.
    return Path(str(dl_manager._manual_dir))
