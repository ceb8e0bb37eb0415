"""Reading the preprocessed folders of the multi-task literature (MTAN, Liu et al., CVPR 2019).

{train,val}/image/I.npy    float [H, W, 3] in 0..1
{train,val}/label/I.npy    [H, W], 13 classes 0..12, -1 = void
{train,val}/depth/I.npy    float [H, W, 1] in metres, 0 = missing
{train,val}/normal/I.npy   float [H, W, 3], unit, 0 = missing
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets import array_files, checking
from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2.frame import Frame

FOLDER_OF_SPLIT = {"train": "train", "test": "val"}

_KINDS = {
    "image": checking.image(1, ("float16", "float32", "float64")),
    "label": checking.labels(-1, len(classes.NAMES_13) - 1),
    "depth": checking.DEPTH._replace(channels=(1,)),
    "normal": checking.NORMALS,
}


def check(root: Path, counts: dict[str, int]) -> None:
    """Checks that every file exists, is complete and has the same size, by the headers alone.

    Hidden files, such as those that macOS adds, are ignored.

    Args:
      root: folder with train/ and val/.
      counts: split -> number of frames.

    Raises:
      ValueError: in one line that names the files or folders.
    """
    folders = {
        (kind, root / FOLDER_OF_SPLIT[split] / kind): count
        for split, count in counts.items()
        for kind in _KINDS
    }
    checking.refuse(
        (f"there is no folder {folder}" for _, folder in folders if not folder.is_dir()),
        advice="`manual_dir` must hold train/ and val/ of the mtan layout",
    )
    problems, forms = [], {}
    for (kind, folder), count in folders.items():
        problems += _wrong_names(folder, count)
        for path in (folder / f"{index}.npy" for index in range(count)):
            if not path.exists():
                continue
            try:
                forms[kind, path] = array_files.npy_form(path)
            except ValueError as error:
                problems.append(str(error))
    size = checking.most_common(shape[:2] for _, shape in forms.values())
    for (kind, path), (dtype, shape) in forms.items():
        expected = (*size, *_KINDS[kind].channels)
        problems += checking.name(path, _KINDS[kind].form(dtype, shape, expected))
    checking.refuse(problems)


def readings(
    root: Path, split: str, count: int
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Yields pairs for `checking.checked`: (index, frame), and what is wrong with its files."""
    for index in range(count):
        paths = {kind: root / FOLDER_OF_SPLIT[split] / kind / f"{index}.npy" for kind in _KINDS}
        arrays, problems, size = {}, [], None
        for kind, path in paths.items():
            try:
                array = arrays[kind] = array_files.load_npy(path)
            except ValueError as error:
                problems.append(str(error))
                continue
            size = array.shape[:2] if size is None else size
            expected = (*size, *_KINDS[kind].channels)
            problems += checking.name(path, _KINDS[kind].problems(array, expected))
        yield None if problems else (index, _frame(**arrays)), problems


def _frame(image: np.ndarray, label: np.ndarray, depth: np.ndarray, normal: np.ndarray) -> Frame:
    return Frame(
        image=image.astype(np.float32) * 255,
        segmentation=label.astype(np.int8),
        depth=depth[..., 0].astype(np.float32),
        normals=_unit_or_zero(normal.astype(np.float32)),
    )


def _wrong_names(folder: Path, count: int) -> list[str]:
    found = {path.name for path in folder.glob("*.npy") if not path.name.startswith(".")}
    missing = [f"{index}.npy" for index in range(count) if f"{index}.npy" not in found]
    problems = []
    if len(found) != count:
        problems.append(f"{folder} has {len(found)} .npy files instead of {count}")
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        problems.append(f"there is no {folder / missing[0]}{others}: files are numbered from 0")
    return problems


def _unit_or_zero(normals: np.ndarray) -> np.ndarray:
    # A shorter normal is the mean of two surfaces, or of a surface and nothing.
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 0.5), 0)
