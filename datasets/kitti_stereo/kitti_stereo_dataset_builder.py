"""The training pairs of KITTI 2015 stereo, as a TFDS builder without TensorFlow."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from datasets import preparing
from datasets.resizing import resize_image, resize_intrinsics, resize_nearest
from datasets.streaming import StreamingBuilder

PAIRS = 200
TEST_EVERY = 5  # the first of five is for testing; see README.md
HOMEPAGE = "https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php?benchmark=stereo"
BYTES_PER_PIXEL = 8


@dataclasses.dataclass(eq=False)
class KittiStereoConfig(tfds.core.BuilderConfig):
    """Height and width of the stored images in pixels."""

    height: int = 128
    width: int = 416

    def __post_init__(self):
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1 pixel, got {self.height}x{self.width}"
            )


_CONFIGS = [KittiStereoConfig(name="128x416", description="A third of the size in each direction.")]


def config(height: int = 128, width: int = 416) -> KittiStereoConfig:
    """The config of this size, named after it.

    Raises:
      ValueError: for a size that is none.
    """
    for known in _CONFIGS:
        if (known.height, known.width) == (height, width):
            return known
    return KittiStereoConfig(name=f"{height}x{width}", height=height, width=width)


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Prepares the set from files fetched by hand, unless that is done.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder with training/; by default `downloads/manual` in the builder's data_dir.

    Raises:
      ValueError: in one line, for files that are missing or wrong.
      OSError: in one line, for a full disk.
    """
    wanted = builder.builder_config
    needed = PAIRS * wanted.height * wanted.width * BYTES_PER_PIXEL
    preparing.prepare(builder, manual_dir=manual_dir, bytes_needed=needed)


class Builder(StreamingBuilder):
    """160 pairs to train on and 40 to test on; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack data_scene_flow.zip and data_scene_flow_calib.zip of {HOMEPAGE} into manual_dir."
    )
    BUILDER_CONFIGS = _CONFIGS

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.builder_config.height, self.builder_config.width)

        def tensor(shape, dtype):
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")

        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor((*shape, 3), np.uint8),
                    "image_right": tensor((*shape, 3), np.uint8),
                    "depth": tensor(shape, np.float16),
                    "intrinsics": tensor((4,), np.float32),
                    "baseline": tfds.features.Tensor(shape=(), dtype=np.float32),
                }
            ),
            homepage=HOMEPAGE,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=[]),
        )

    def split_sizes(self) -> dict[str, int]:
        """Number of pairs of each split."""
        return {split: len(numbers) for split, numbers in split_numbers().items()}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        # TFDS's own property refuses an empty folder with several lines.
        root = find_root(Path(dl_manager._manual_dir))
        return {
            split: self._generate_examples(root, numbers)
            for split, numbers in split_numbers().items()
        }

    def _generate_examples(
        self, root: Path, numbers: list[int]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        wanted = self.builder_config
        for number in numbers:
            yield number, make_example(root, number, wanted.height, wanted.width)


def split_numbers() -> dict[str, list[int]]:
    """The pairs of each split."""
    test = list(range(0, PAIRS, TEST_EVERY))
    return {"train": [n for n in range(PAIRS) if n not in test], "test": test}


def find_root(manual_dir: Path) -> Path:
    """The folder training/, or what lies above it.

    Raises:
      ValueError: in one line, if a part of it is missing, naming the first.
    """
    root = manual_dir / "training" if (manual_dir / "training").is_dir() else manual_dir
    for number in range(PAIRS):
        for path in paths(root, number):
            if not path.is_file():
                raise ValueError(
                    f"{path} is missing: unpack data_scene_flow.zip and data_scene_flow_calib.zip "
                    f"of {HOMEPAGE} into one folder and name it by --manual_dir"
                )
    return root


def paths(root: Path, number: int) -> tuple[Path, Path, Path, Path]:
    """Left image, right image, disparity and calibration of a pair."""
    frame = f"{number:06d}_10.png"
    folders = ("image_2", "image_3", "disp_occ_0")
    left, right, disparity = (root / folder / frame for folder in folders)
    return left, right, disparity, root / "calib_cam_to_cam" / f"{number:06d}.txt"


def make_example(root: Path, number: int, height: int, width: int) -> dict[str, np.ndarray]:
    """What is stored of a pair.

    Raises:
      ValueError: in one line, for a file that is not what its name says.
    """
    left, right, disparity_path, calibration = paths(root, number)
    intrinsics, baseline = read_calibration(calibration)
    images = [read_png(path) for path in (left, right)]
    disparity = read_png(disparity_path).astype(np.float64) / 256
    for path, array, shape in (
        (left, images[0], (*disparity.shape[:2], 3)),
        (right, images[1], images[0].shape),
        (disparity_path, disparity, images[0].shape[:2]),
    ):
        if array.shape != shape:
            raise ValueError(f"{path} is {list(array.shape)} instead of {list(shape)}")
    known = disparity > 0
    depth = np.where(known, intrinsics[0] * baseline / np.where(known, disparity, 1), 0)
    shape = depth.shape
    small = [resize_image(image.astype(np.float32), height, width) for image in images]
    image, image_right = (np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in small)
    return {
        "image": image,
        "image_right": image_right,
        "depth": resize_nearest(depth, height, width).astype(np.float16),
        "intrinsics": resize_intrinsics(intrinsics, shape, height, width),
        "baseline": np.float32(baseline),
    }


def read_calibration(path: Path) -> tuple[np.ndarray, float]:
    """fx fy cx cy in pixels of the left colour camera, and metres to the right one.

    Both are in the rectified projection matrices P = K [I | t] of the cameras 2 and 3.

    Raises:
      ValueError: in one line, for a file without them.
    """
    matrices = {}
    for line in path.read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name in ("P_rect_02", "P_rect_03"):
            try:
                matrices[name] = np.array(numbers.split(), np.float64)
            except ValueError as error:
                raise ValueError(f"{path}, {name}: {error}") from error
    if len(matrices) != 2 or any(matrix.size != 12 for matrix in matrices.values()):
        raise ValueError(f"{path} does not hold P_rect_02 and P_rect_03 of 12 numbers each")
    left, right = (matrices[name].reshape(3, 4) for name in ("P_rect_02", "P_rect_03"))
    baseline = (left[0, 3] - right[0, 3]) / left[0, 0]
    return np.array([left[0, 0], left[1, 1], left[0, 2], left[1, 2]]), float(baseline)


def read_png(path: Path) -> np.ndarray:
    """The pixels of a PNG.

    Raises:
      ValueError: in one line, for a file that is none.
    """
    try:
        with Image.open(path) as image:
            return np.array(image)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} can't be read as a PNG: fetch it again") from error
