"""The base of the TFDS builders here: it writes examples one by one, without TensorFlow."""

import abc
import collections
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from datasets import prepared
from mtl_jax import faults, files
from mtl_jax.data.splits import image_digest

EXAMPLES_PER_SHARD = 100
# Of a large split the shards are larger, since all of them are open while it is read, and many
# systems let a process open 1024 files.
MOST_SHARDS = 200
# Examples per write, since the writer updates the info on disk after every write.
GROUP = 20


def tensor(shape: tuple[int, ...], dtype: type[np.generic]) -> tfds.features.Tensor:
    """Returns the feature of an array that is stored compressed."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")


class StreamingBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that writes its examples to disk one after the other and shows one progress bar.

    TFDS itself keeps a whole split in memory and needs TensorFlow for a split above 1 GiB.
    """

    def __init__(self, *, file_format: str = prepared.FILE_FORMAT, **kwargs):
        # The only format that TFDS writes and reads without TensorFlow.
        super().__init__(file_format=file_format, **kwargs)

    def dataset_info_from_configs(self, **kwargs) -> prepared.Info:
        """Returns the description of the set, with the texts from the builder's folder."""
        texts = self.get_metadata()
        return prepared.Info(
            builder=self, description=texts.description, citation=texts.citation, **kwargs
        )

    def as_data_source(self, split: str | None = None, **kwargs) -> Any:
        """Returns the examples of a split for random access; see `prepared.Source`."""
        examples = super().as_data_source(split=split, **kwargs)
        if split not in self.info.splits:
            return examples
        return prepared.Source(examples, self.info.splits[split])

    @abc.abstractmethod
    def split_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each split."""

    def known_entries(self) -> tuple[str, ...]:
        """Returns the names of what its examples hold, without those of which nothing is known."""
        return tuple(self.info.features)

    def advice(self) -> dict[str, str]:
        """Returns how the set can have what it lacks, by the name of the entry."""
        return {}

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        # The writer needs an info that knows the current temporary folder.
        info = self._info()
        sizes, limit = self.split_sizes(), download_config.max_examples_per_split
        writer = tfds.core.SequentialWriter(
            info,
            max_examples_per_shard=max(
                EXAMPLES_PER_SHARD, math.ceil(max(sizes.values()) / MOST_SHARDS)
            ),
            file_format=self.info.file_format,
        )
        splits = self._split_generators(dl_manager)
        total = sum(size if limit is None else min(size, limit) for size in sizes.values())
        empty = collections.Counter()
        bar = tqdm(total=total, desc=f"preparing {self.name}", unit=" images")
        with bar, faults.no_interruption_lost():
            for split, numbered in splits.items():
                writer.initialize_splits([split])
                examples = (example for _, example in itertools.islice(numbered, limit))
                digests = bytearray()
                while group := list(itertools.islice(examples, GROUP)):
                    writer.add_examples({split: group})
                    empty.update((split, name) for each in group for name in _empty_labels(each))
                    digests += b"".join(image_digest(each["image"]) for each in group)
                    bar.update(len(group))
                # Whether images are in both splits is then known without reading them.
                files.write(prepared.digests_path(Path(self.data_dir), split), bytes(digests))
        writer.close_all()
        self.info.set_splits(info.splits)
        self._report_missing(empty)

    def _report_missing(self, missing: Mapping[tuple[str, str], int]) -> None:
        """Prints how many images of a split lack all labels of a name."""
        sizes = self.split_sizes()
        for (split, name), count in missing.items():
            print(f"{count} of the {sizes[split]} images of {split} have no {name}")

    # The progress bar is enough: TFDS would print two more lines around it.

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _empty_labels(example: dict[str, np.ndarray]) -> list[str]:
    """Returns the names of labels that an example lacks. (Normals are missing where depth is.)"""
    missing = {"segmentation": -1, "depth": 0}
    return [name for name in missing if name in example and np.all(example[name] == missing[name])]
