"""The training pairs of KITTI 2015 stereo, as a TFDS builder without TensorFlow."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from datasets import array_files, checking, preparing
from datasets.cityscapes import classes as cityscapes
from datasets.resizing import resize_colours, resize_intrinsics, resize_nearest
from datasets.streaming import StreamingBuilder, tensor

PAIRS = 200
TEST_EVERY = 5  # the first of five is for testing; see README.md
HOMEPAGE = "https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php?benchmark=stereo"
LABELS_PAGE = "https://www.cvlibs.net/datasets/kitti/eval_semseg.php?benchmark=semantics2015"
BYTES_PER_PIXEL = 8
# What a pixel is, and its axes after height and width.
PIXELS = {
    "image_2": ("8-bit RGB", (3,)),
    "image_3": ("8-bit RGB", (3,)),
    "disp_occ_0": ("16-bit grey", ()),
    "semantic": ("8-bit grey", ()),
}


class Pair(NamedTuple):
    """A pair at the size of its files.

    Attributes:
      image: u8[H, W, 3], of the left camera.
      image_right: u8[H, W, 3].
      depth: f64[H, W] in metres, 0 = missing.
      intrinsics: f64[4], fx fy cx cy in pixels of the left camera.
      baseline: metres between the cameras.
      segmentation: int8[H, W], class, -1 = void; None if it was not read.
    """

    image: np.ndarray
    image_right: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    baseline: float
    segmentation: np.ndarray | None = None


@dataclasses.dataclass(eq=False)
class KittiStereoConfig(tfds.core.BuilderConfig):
    """The form of the prepared set; `config` makes one with a matching name.

    Attributes:
      height: of the images in pixels.
      width: of the images in pixels.
      classes: 7 or 19, as in Cityscapes, or 0 for no segmentation.
    """

    height: int = 128
    width: int = 416
    classes: int = 0

    def __post_init__(self):
        cityscapes.check_number(self.classes, (0, 7, 19))
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1 pixel, got {self.height}x{self.width}"
            )


_CONFIGS = [KittiStereoConfig(name="128x416", description="A third of the size in each direction.")]


def config(height: int = 128, width: int = 416, classes: int = 0) -> KittiStereoConfig:
    """Returns the config with a matching name, such as "128x416" or "128x416_classes19".

    Raises:
      ValueError: for a height or width below 1, or another number of classes.
    """
    name = f"{height}x{width}" + (f"_classes{classes}" if classes else "")
    for known in _CONFIGS:
        if known.name == name:
            return known
    return KittiStereoConfig(name=name, height=height, width=width, classes=classes)


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Prepares the set from files fetched by hand, if necessary.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder with training/; by default `downloads/manual` in the builder's data_dir.

    Raises:
      ValueError: in one line, for files that are missing or wrong.
      OSError: in one line, for a full disk.
    """
    preparing.prepare(builder, manual_dir=manual_dir, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(StreamingBuilder):
    """160 pairs to train on and 40 to test on; see README.md next to this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack data_scene_flow.zip and data_scene_flow_calib.zip of {HOMEPAGE} into manual_dir: "
        "8-bit RGB images, 16-bit disparity in pixels times 256, and calibrations in metres. For "
        f"configs with classes also data_semantics.zip of {LABELS_PAGE}: 8-bit ids of Cityscapes."
    )
    BUILDER_CONFIGS = _CONFIGS

    def _info(self) -> tfds.core.DatasetInfo:
        wanted = self.builder_config
        shape = (wanted.height, wanted.width)
        features = {
            "image": tensor((*shape, 3), np.uint8),
            "image_right": tensor((*shape, 3), np.uint8),
            "depth": tensor(shape, np.float16),
            "intrinsics": tensor((4,), np.float32),
            "baseline": tfds.features.Tensor(shape=(), dtype=np.float32),
        }
        names = ()
        if wanted.classes:
            features["segmentation"] = tensor(shape, np.int8)
            names = cityscapes.class_names(wanted.classes)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(names)),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of pairs of each split."""
        return {split: len(numbers) for split, numbers in split_numbers().items()}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        # TFDS's own property refuses an empty folder with several lines.
        classes = self.builder_config.classes
        root = find_root(Path(str(dl_manager._manual_dir)), classes)
        check(root, classes)
        pairs = checking.checked(
            {split: readings(root, numbers, classes) for split, numbers in split_numbers().items()}
        )
        return {split: self._generate_examples(found) for split, found in pairs.items()}

    def _generate_examples(
        self, pairs: Iterator[tuple[int, Pair]]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        wanted = self.builder_config
        for number, pair in pairs:
            yield number, make_example(pair, wanted.height, wanted.width)


def split_numbers() -> dict[str, list[int]]:
    """Returns the numbers of the pairs of each split."""
    test = list(range(0, PAIRS, TEST_EVERY))
    return {"train": [n for n in range(PAIRS) if n not in test], "test": test}


def find_root(manual_dir: Path, classes: int = 0) -> Path:
    """Returns the folder training/, or `manual_dir` itself if that holds the parts of training/.

    Args:
      manual_dir: folder to look in.
      classes: number of classes; 0 if the labels of the segmentation are not needed.

    Raises:
      ValueError: in one line, if parts of it are missing.
    """
    root = manual_dir / "training" if (manual_dir / "training").is_dir() else manual_dir
    missing = [
        f"{path} is missing"
        for number in range(PAIRS)
        for path in paths(root, number)
        if not path.is_file()
    ]
    checking.refuse(
        missing,
        advice="unpack data_scene_flow.zip and data_scene_flow_calib.zip "
        f"of {HOMEPAGE} into one folder and set `manual_dir` to it",
    )
    unlabelled = [path for n in range(PAIRS) if not (path := labels_path(root, n)).is_file()]
    if classes:
        checking.refuse(
            (f"{path} is missing" for path in unlabelled),
            advice=f"unpack data_semantics.zip of {LABELS_PAGE} into {root.parent}, or leave "
            f"classes={classes} out of `dataset`",
        )
    elif not unlabelled:
        print(f"{root / 'semantic'} is not used: kitti_stereo:classes=19 reads it")
    return root


def paths(root: Path, number: int) -> tuple[Path, Path, Path, Path]:
    """Returns the paths of left image, right image, disparity and calibration of a pair."""
    frame = f"{number:06d}_10.png"
    folders = ("image_2", "image_3", "disp_occ_0")
    left, right, disparity = (root / folder / frame for folder in folders)
    return left, right, disparity, root / "calib_cam_to_cam" / f"{number:06d}.txt"


def labels_path(root: Path, number: int) -> Path:
    """Returns the path of the segmentation of a pair's left image."""
    return root / "semantic" / f"{number:06d}_10.png"


def check(root: Path, classes: int = 0) -> None:
    """Checks the headers of all images and all calibrations.

    Args:
      root: from `find_root`.
      classes: number of classes; 0 if the labels of the segmentation are not needed.

    Raises:
      ValueError: in one line that names the files.
    """
    checking.refuse(problem for number in range(PAIRS) for problem in _forms(root, number, classes))


def readings(
    root: Path, numbers: list[int], classes: int = 0
) -> Iterator[tuple[tuple[int, Pair] | None, list[str]]]:
    """Yields pairs for `checking.checked`: (number, pair), and what is wrong with its files."""
    for number in numbers:
        pair, problems = _read(root, number, classes)
        yield None if pair is None else (number, pair), problems


def _pngs(root: Path, number: int, classes: int) -> list[Path]:
    """Returns the paths of a pair's images, each in a folder of `PIXELS`."""
    labels = [labels_path(root, number)] if classes else []
    return [*paths(root, number)[:-1], *labels]


def _forms(root: Path, number: int, classes: int) -> list[str]:
    """Returns what is wrong with the headers of a pair's images, and with its calibration."""
    calibration = paths(root, number)[-1]
    problems, forms = [], {}
    for path in _pngs(root, number, classes):
        try:
            forms[path] = array_files.png_form(path)
        except ValueError as error:
            problems.append(str(error))
    size = checking.most_common(form.size for form in forms.values())
    for path, form in forms.items():
        pixels, channels = PIXELS[path.parent.name]
        if form.pixels != pixels:
            problems.append(f"{path} is {form.pixels}, where KITTI has {pixels}")
        elif form.size != size:
            found, expected = ([*each, *channels] for each in (form.size, size))
            problems.append(f"{path} is {found} instead of {expected}")
    try:
        intrinsics, baseline = read_calibration(calibration)
    except ValueError as error:
        return [*problems, str(error)]
    phrases = checking.baseline_values(baseline)
    if size:
        phrases += checking.intrinsics_values(intrinsics, *size)
    return problems + checking.name(calibration, phrases)


def _read(root: Path, number: int, classes: int) -> tuple[Pair | None, list[str]]:
    """Returns a pair, or None and what is wrong with its files."""
    if problems := _forms(root, number, classes):
        return None, problems
    pngs, arrays = _pngs(root, number, classes), []
    for path in pngs:
        try:
            arrays.append(array_files.load_png(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return None, problems
    image, image_right, stored, *labels = arrays
    intrinsics, baseline = read_calibration(paths(root, number)[-1])
    disparity = stored.astype(np.float64) / 256
    known = disparity > 0
    depth = np.where(known, intrinsics[0] * baseline / np.where(known, disparity, 1), 0)
    problems = checking.name(pngs[2], checking.disparity_values(disparity))
    problems = problems or checking.name(f"{pngs[2]}: its depth", checking.depth_values(depth))
    segmentation = None
    for ids in labels:
        problems += checking.name(pngs[3], cityscapes.id_values(ids))
        segmentation = cityscapes.class_of_id(classes)[ids]
    return Pair(image, image_right, depth, intrinsics, baseline, segmentation), problems


def make_example(pair: Pair, height: int, width: int) -> dict[str, np.ndarray]:
    """Returns what is stored of a pair."""
    example = {
        "image": resize_colours(pair.image, height, width),
        "image_right": resize_colours(pair.image_right, height, width),
        "depth": resize_nearest(pair.depth, height, width).astype(np.float16),
        "intrinsics": resize_intrinsics(pair.intrinsics, pair.depth.shape, height, width),
        "baseline": np.asarray(pair.baseline, np.float32),
    }
    if pair.segmentation is not None:
        example["segmentation"] = resize_nearest(pair.segmentation, height, width)
    return example


def read_calibration(path: Path) -> tuple[np.ndarray, float]:
    """Returns fx, fy, cx, cy of the left colour camera in pixels, and the metres to the right one.

    Both are in the rectified projection matrices P = K [I | t] of the cameras 2 and 3.

    Raises:
      ValueError: in one line, for a file without them.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} can't be read as text") from error
    matrices = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name in ("P_rect_02", "P_rect_03"):
            try:
                matrices[name] = np.array(numbers.split(), np.float64)
            except ValueError as error:
                raise ValueError(f"{path}, {name}: {error}") from error
    if len(matrices) != 2 or any(matrix.size != 12 for matrix in matrices.values()):
        raise ValueError(f"{path} does not hold P_rect_02 and P_rect_03 of 12 numbers each")
    left, right = (matrices[name].reshape(3, 4) for name in ("P_rect_02", "P_rect_03"))
    if not (np.all(np.isfinite(left)) and np.all(np.isfinite(right)) and left[0, 0] > 0):
        raise ValueError(f"{path} holds a focal length that is not positive, NaN or infinity")
    if not np.allclose(left[:, :3], right[:, :3], rtol=1e-3):
        raise ValueError(
            f"{path} gives P_rect_02 and P_rect_03 different cameras: the pair is not rectified"
        )
    baseline = (left[0, 3] - right[0, 3]) / left[0, 0]
    return np.array([left[0, 0], left[1, 1], left[0, 2], left[1, 2]]), float(baseline)
