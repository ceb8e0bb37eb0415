"""Prepared sets on disk: damage is reported in one line that names the file and the remedy."""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

FILE_FORMAT = "array_record"
# Length of an `image_digest`.
DIGEST_BYTES = 32


class Info(tfds.core.DatasetInfo):
    """The description of a set. If its file is damaged, the error names it."""

    def read_from_directory(self, dataset_info_dir: Any) -> None:
        """Reads what the folder holds.

        Raises:
          ValueError: in one line, if that is damaged or belongs to another set.
          OSError: if the file can't be read.
        """
        folder = Path(dataset_info_dir)
        path = folder / "dataset_info.json"
        stated = read_json(path)
        expected = {
            "name": self.name,
            "configName": self.config_name,
            "version": str(self.version),
            "fileFormat": FILE_FORMAT,
        }
        for key, value in expected.items():
            if stated.get(key) != value:
                raise damaged(path, f"has {stated.get(key)!r} for {key} instead of {value!r}")
        # Read first, since those in the folder replace them.
        class_names = list(self.metadata["class_names"])
        try:
            super().read_from_directory(dataset_info_dir)
        except OSError:
            raise
        except Exception as error:
            # TFDS raises errors of many kinds, and some of many lines, for what the JSON may hold.
            raise damaged(path) from error
        # TFDS reads the first file late and the second one itself: damage is found here.
        if read_json(folder / "metadata.json").get("class_names") != class_names:
            raise damaged(folder / "metadata.json", "names other classes than this builder")
        self._features = _stored_features(folder, self.features)

    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS's server has no such set, and a request leaves an empty folder."""


class Source:
    """Random access to the examples of a split, where damage is a ValueError of one line."""

    def __init__(self, examples: Sequence[dict[str, np.ndarray]], split: tfds.core.SplitInfo):
        self._examples, self._split = examples, split
        self._ends = list(itertools.accumulate(split.shard_lengths))

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def _folder(self) -> Path:
        return Path(self._split.filepaths[0]).parent

    @property
    def bytes_per_example(self) -> float:
        """Returns the mean size of an example in the files."""
        return sum(Path(path).stat().st_size for path in self._split.filepaths) / len(self)

    @functools.cached_property
    def image_digests(self) -> list[bytes] | None:
        """Returns `image_digest` of each image; None for a set that was prepared without them.

        Raises:
          ValueError: in one line that names the file, if it is damaged.
          OSError: in one line that names the file, if it can't be read.
        """
        path = digests_path(self._folder, self._split.name)
        if not path.exists():
            return None
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, "") from error
        if len(content) != DIGEST_BYTES * len(self):
            raise damaged(path)
        return [content[i : i + DIGEST_BYTES] for i in range(0, len(content), DIGEST_BYTES)]

    @functools.cached_property
    def lacking(self) -> dict[str, list[int]] | None:
        """Returns, for each entry, the numbers of the images in which it is missing everywhere.

        None for a set that was prepared without them.

        Raises:
          ValueError: in one line that names the file, if it is damaged.
          OSError: in one line that names the file, if it can't be read.
        """
        path = lacking_path(self._folder, self._split.name)
        if not path.exists():
            return None
        content = read_json(path)
        for numbers in content.values():
            if not isinstance(numbers, list) or not all(
                isinstance(number, int) and 0 <= number < len(self) for number in numbers
            ):
                raise damaged(path)
        return content

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns an example by its number.

        Raises:
          ValueError: in one line that names the file, if it is damaged.
          OSError: in one line that names the file, if it can't be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        try:
            return self._examples[index]
        except MemoryError:
            raise
        except Exception as error:
            shard = Path(self._split.filepaths[np.searchsorted(self._ends, index, side="right")])
            raise _unreadable(
                shard, f"is damaged at example {index} of {self._split.name}"
            ) from error


def digests_path(folder: Path, split: str) -> Path:
    """Returns the file with the digests of a split's images, one after the other."""
    return folder / f"{split}-images.sha256"


def lacking_path(folder: Path, split: str) -> Path:
    """Returns the file with the numbers of a split's images that lack an entry."""
    return folder / f"{split}-lacking.json"


def _stored_features(
    folder: Path, expected: tfds.features.FeaturesDict
) -> tfds.features.FeaturesDict:
    """Returns what a set holds, in the encoding in which it was written.

    Sets of earlier versions hold arrays compressed by zlib, newer ones their plain bytes.

    Raises:
      ValueError: in one line, if that is damaged or the arrays are not those expected.
      OSError: if the file can't be read.
    """
    path = folder / "features.json"
    read_json(path)
    try:
        stored: Any = tfds.features.FeatureConnector.from_config(str(folder))
        same = _forms(stored) == _forms(expected)
    except OSError:
        raise
    except Exception as error:
        raise damaged(path) from error
    if not same:
        raise damaged(path, "describes other arrays than this builder makes")
    return stored


def _forms(features: tfds.features.FeaturesDict) -> dict[str, tuple[Any, Any]]:
    """Returns the shape and type of each array of an example."""
    return {name: (each.shape, each.np_dtype) for name, each in features.items()}


def check(builder: tfds.core.DatasetBuilder) -> None:
    """Checks that a prepared set is complete, as far as possible without reading its examples.

    Raises:
      ValueError: in one line that names the file, if it is missing or damaged.
      OSError: in one line that names the file, if it can't be read.
    """
    folder = Path(builder.data_dir)
    builder.info.read_from_directory(folder)
    listed = set()
    for split in builder.split_sizes():
        if split not in builder.info.splits:
            raise damaged(folder / "dataset_info.json", f"lists no split {split!r}")
        for path, expected in _shards(builder.info.splits[split]):
            listed.add(path.name)
            found = _num_records(path)
            if found != expected:
                raise damaged(path, f"holds {found} examples instead of {expected}")
    others = {path.name for path in folder.glob(f"[!.]*.{FILE_FORMAT}-*")} - listed
    if others:
        raise damaged(folder / "dataset_info.json", f"does not list {min(others)}")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a prepared set.

    Raises:
      ValueError: in one line, if there is none.
      OSError: in one line, if the file can't be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, "") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(content, dict):
        raise damaged(path)
    return content


def damaged(path: Path, what: str = "is damaged") -> ValueError:
    """Returns the error for a file of a prepared set, with what to do about it."""
    return ValueError(
        f"{path} {what}: delete the folder {path.parent}, and only that, for the next run to "
        "prepare the set again"
    )


def _shards(split: tfds.core.SplitInfo) -> Iterator[tuple[Path, int]]:
    """Returns the files of a split with the number of examples that each should hold."""
    return zip(map(Path, split.filepaths), split.shard_lengths, strict=True)


def _num_records(path: Path) -> int:
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        try:
            return reader.num_records()
        finally:
            reader.close()
    except Exception as error:
        raise _unreadable(path, "is damaged") from error


def _unreadable(path: Path, what: str) -> Exception:
    """Returns the error for a file that can't be used because it or the disk is damaged."""
    try:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    except FileNotFoundError:
        return damaged(path, "is missing")
    except OSError as error:
        # The file may be intact, so the user must not be asked to delete it.
        return OSError(f"{path} can't be read ({error.strerror})")
    return damaged(path, what)
