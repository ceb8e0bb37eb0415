"""Folders of arrays as the multi-task literature shares them (MTAN, Liu et al., CVPR 2019).

{train,val}/KIND/I.npy holds an array of frame I, from 0; the kinds and their contents differ from
data set to data set.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from datasets import array_files, checking, threads

Frame = TypeVar("Frame")

FOLDER_OF_SPLIT = {"train": "train", "test": "val"}


def check(root: Path, counts: Mapping[str, int], kinds: Mapping[str, checking.Kind]) -> None:
    """Checks that every file exists, is complete and has the same size, by the headers alone.

    Hidden files, such as those that macOS adds, are ignored.

    Args:
      root: folder with train/ and val/.
      counts: split -> number of frames.
      kinds: name of a folder -> what its arrays may hold.

    Raises:
      ValueError: in one line that names the files or folders.
    """
    folders = {
        (kind, root / FOLDER_OF_SPLIT[split] / kind): count
        for split, count in counts.items()
        for kind in kinds
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
        expected = (*size, *kinds[kind].channels)
        problems += checking.name(path, kinds[kind].form(dtype, shape, expected))
    checking.refuse(problems)


def readings(
    root: Path,
    split: str,
    count: int,
    kinds: Mapping[str, checking.Kind],
    frame_of: Callable[..., Frame],
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Yields pairs for `checking.checked`: (index, frame), and what is wrong with its files.

    Args:
      root: folder with train/ and val/.
      split: the split to read.
      count: number of its frames.
      kinds: name of a folder -> what its arrays may hold.
      frame_of: arrays, in the order of the kinds -> a frame.
    """

    def read(index: int) -> tuple[tuple[int, Frame] | None, list[str]]:
        paths = {kind: root / FOLDER_OF_SPLIT[split] / kind / f"{index}.npy" for kind in kinds}
        arrays, problems, size = {}, [], None
        for kind, path in paths.items():
            try:
                array = arrays[kind] = array_files.load_npy(path)
            except ValueError as error:
                problems.append(str(error))
                continue
            size = array.shape[:2] if size is None else size
            expected = (*size, *kinds[kind].channels)
            problems += checking.name(path, kinds[kind].problems(array, expected))
        return None if problems else (index, frame_of(*arrays.values())), problems

    yield from threads.in_order(read, range(count))


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
