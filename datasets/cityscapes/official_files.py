"""Reading the files of the official downloads, each unpacked into one folder.

leftImg8bit/SPLIT/CITY/STEM_leftImg8bit.png      8-bit RGB
rightImg8bit/SPLIT/CITY/STEM_rightImg8bit.png    8-bit RGB
gtFine/SPLIT/CITY/STEM_gtFine_labelIds.png       8-bit grey, ids of `classes`
disparity/SPLIT/CITY/STEM_disparity.png          16-bit grey, disparity in pixels * 256 + 1, 0 =
                                                 unknown
camera/SPLIT/CITY/STEM_camera.json               extrinsic.baseline in metres; intrinsic.fx, fy, u0
                                                 and v0 in pixels
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets import array_files, checking
from datasets.cityscapes import classes

FOLDER_OF_SPLIT = {"train": "train", "test": "val"}
DOWNLOADS = "https://www.cityscapes-dataset.com/downloads"
# In metres. Stereo matching can't distinguish larger depths, and evaluations of depth on this data
# set end here, too.
FARTHEST = 80.0


class Part(NamedTuple):
    """One of the downloads.

    Attributes:
      folder: that it unpacks to, and the name of its zip file with `_trainvaltest.zip`.
      ending: of its files, after the stem of the frame.
      pixels: as `array_files.png_form` names them; "" for what is no image.
      channels: size of the axes after height and width.
    """

    folder: str
    ending: str
    pixels: str = ""
    channels: tuple[int, ...] = ()


LEFT = Part("leftImg8bit", "_leftImg8bit.png", "8-bit RGB", (3,))
RIGHT = Part("rightImg8bit", "_rightImg8bit.png", "8-bit RGB", (3,))
LABELS = Part("gtFine", "_gtFine_labelIds.png", "8-bit grey")
DISPARITY = Part("disparity", "_disparity.png", "16-bit grey")
CAMERA = Part("camera", "_camera.json")

# What a data set holds -> the files that it needs.
PARTS = {
    "segmentation": (LEFT, LABELS, CAMERA),
    "depth": (LEFT, LABELS, CAMERA, DISPARITY),
    "stereo": (LEFT, LABELS, CAMERA, DISPARITY, RIGHT),
}


class Frame(NamedTuple):
    """A frame at the size of its files.

    Attributes:
      image: u8[H, W, 3], of the left camera.
      segmentation: int8[H, W], class, -1 = void.
      intrinsics: f64[4], fx fy cx cy in pixels of the left camera.
      baseline: metres between the cameras.
      depth: f64[H, W] in metres, 0 = missing; None without disparity.
      image_right: u8[H, W, 3]; None without the right view.
    """

    image: np.ndarray
    segmentation: np.ndarray
    intrinsics: np.ndarray
    baseline: float
    depth: np.ndarray | None = None
    image_right: np.ndarray | None = None


def find(root: Path, counts: Mapping[str, int], content: str) -> dict[str, list[str]]:
    """Returns the frames of each split, as CITY/STEM, by name.

    Args:
      root: folder with leftImg8bit/ and the other parts.
      counts: split -> number of frames.
      content: a key of `PARTS`.

    Raises:
      ValueError: in one line, for folders or files that are missing.
    """
    for part in PARTS[content]:
        missing = [
            folder
            for split in FOLDER_OF_SPLIT.values()
            if not (folder := root / part.folder / split).is_dir()
        ]
        checking.refuse(
            (f"there is no folder {folder}" for folder in missing), advice=_advice(root, part)
        )
    frames = {split: _stems(root / LEFT.folder / FOLDER_OF_SPLIT[split]) for split in counts}
    checking.refuse(
        (
            f"{root / LEFT.folder / FOLDER_OF_SPLIT[split]} has {len(frames[split])} images "
            f"CITY/*{LEFT.ending} instead of {count}"
            for split, count in counts.items()
            if len(frames[split]) != count
        ),
        advice=_advice(root, LEFT),
    )
    for part in PARTS[content]:
        checking.refuse(
            (
                f"{path} is missing"
                for split, stems in frames.items()
                for path in (_path(root, part, split, stem) for stem in stems)
                if not path.is_file()
            ),
            advice=_advice(root, part),
        )
    return frames


def check(root: Path, frames: Mapping[str, list[str]], content: str) -> None:
    """Checks the headers of all images and all cameras.

    Raises:
      ValueError: in one line that names the files.
    """
    checking.refuse(
        problem
        for split, stems in frames.items()
        for stem in stems
        for problem in _forms(_paths(root, split, stem, content))
    )


def readings(
    root: Path, split: str, stems: list[str], content: str, num_classes: int
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Yields pairs for `checking.checked`: (index, frame), and what is wrong with its files."""
    class_of_id = classes.class_of_id(num_classes)
    for index, stem in enumerate(stems):
        frame, problems = _read(_paths(root, split, stem, content), class_of_id)
        yield None if frame is None else (index, frame), problems


def disparity_of(stored: np.ndarray) -> np.ndarray:
    """Returns disparities f64[H, W] in pixels from those stored u16[H, W]; 0 = unknown.

    What is stored as infinitely far away, with a disparity of 0, counts as unknown, too.
    """
    return (np.maximum(stored, 1).astype(np.float64) - 1) / 256


def depth_of(disparity: np.ndarray, intrinsics: np.ndarray, baseline: float) -> np.ndarray:
    """Returns depths f64[H, W] in metres, 0 = missing or farther than `FARTHEST`."""
    known = disparity * FARTHEST >= intrinsics[0] * baseline
    return np.where(known, intrinsics[0] * baseline / np.where(known, disparity, 1), 0)


def read_camera(path: Path) -> tuple[np.ndarray, float]:
    """Returns fx, fy, cx, cy of the left camera in pixels, and the metres to the right one.

    Raises:
      ValueError: in one line, for a file without them.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read as JSON") from error
    intrinsics = [_number(path, content, "intrinsic", key) for key in ("fx", "fy", "u0", "v0")]
    return np.array(intrinsics), _number(path, content, "extrinsic", "baseline")


def _number(path: Path, content: Any, group: str, key: str) -> float:
    value = content.get(group) if isinstance(content, dict) else None
    value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path} has no number {group}.{key}")
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _stems(folder: Path) -> list[str]:
    paths = (path for path in folder.glob(f"*/*{LEFT.ending}") if not path.name.startswith("."))
    return sorted(f"{path.parent.name}/{path.name.removesuffix(LEFT.ending)}" for path in paths)


def _path(root: Path, part: Part, split: str, stem: str) -> Path:
    return root / part.folder / FOLDER_OF_SPLIT[split] / f"{stem}{part.ending}"


def _paths(root: Path, split: str, stem: str, content: str) -> dict[Part, Path]:
    return {part: _path(root, part, split, stem) for part in PARTS[content]}


def _advice(root: Path, part: Part) -> str:
    unpack = f"unpack {part.folder}_trainvaltest.zip of {DOWNLOADS} into {root}"
    without = next((name for name in reversed(PARTS) if part not in PARTS[name]), None)
    instead = f", or do without by `dataset`=cityscapes:content={without}" if without else ""
    return f"{unpack}, or set `manual_dir` to the folder that has it{instead}"


def _forms(paths: dict[Part, Path]) -> list[str]:
    """Returns what is wrong with the headers of a frame's images, and with its camera."""
    problems, forms = [], {}
    images = {part: path for part, path in paths.items() if part.pixels}
    for part, path in images.items():
        try:
            forms[part] = array_files.png_form(path)
        except ValueError as error:
            problems.append(str(error))
    size = checking.most_common(form.size for form in forms.values())
    for part, form in forms.items():
        if form.pixels != part.pixels:
            problems.append(f"{paths[part]} is {form.pixels}, where Cityscapes has {part.pixels}")
        elif form.size != size:
            found, expected = ([*each, *part.channels] for each in (form.size, size))
            problems.append(f"{paths[part]} is {found} instead of {expected}")
    try:
        intrinsics, baseline = read_camera(paths[CAMERA])
    except ValueError as error:
        return [*problems, str(error)]
    phrases = checking.baseline_values(baseline)
    if size:
        phrases += checking.intrinsics_values(intrinsics, *size)
    return problems + checking.name(paths[CAMERA], phrases)


def _read(paths: dict[Part, Path], class_of_id: np.ndarray) -> tuple[Frame | None, list[str]]:
    """Returns a frame, or None and what is wrong with its files."""
    if problems := _forms(paths):
        return None, problems
    arrays = {}
    for part, path in paths.items():
        if part.pixels:
            try:
                arrays[part] = array_files.load_png(path)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        return None, problems
    intrinsics, baseline = read_camera(paths[CAMERA])
    problems = checking.name(paths[LABELS], classes.id_values(arrays[LABELS]))
    depth = None
    if DISPARITY in arrays:
        disparity = disparity_of(arrays[DISPARITY])
        depth = depth_of(disparity, intrinsics, baseline)
        phrases = checking.disparity_values(disparity)
        phrases = phrases or checking.depth_values(depth, may_be_empty=True)
        problems += checking.name(paths[DISPARITY], phrases)
    segmentation = class_of_id[arrays[LABELS]]
    frame = Frame(arrays[LEFT], segmentation, intrinsics, baseline, depth, arrays.get(RIGHT))
    return None if problems else frame, problems
