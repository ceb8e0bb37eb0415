"""What the TFDS builders here share: examples written as they come, without TensorFlow."""

import abc
import collections
import itertools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from datasets import prepared
from mtl_jax import faults

EXAMPLES_PER_SHARD = 100
# Written at a time, since the writer brings the info on disk up to date after each time.
GROUP = 20


class StreamingBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose examples go to disk one after the other, below one bar.

    TFDS's own way keeps a whole split in memory and needs TensorFlow for one above 1 GiB.
    """

    def __init__(self, *, file_format: str = prepared.FILE_FORMAT, **kwargs):
        # The one format that TFDS writes and reads without TensorFlow.
        super().__init__(file_format=file_format, **kwargs)

    def dataset_info_from_configs(self, **kwargs) -> prepared.Info:
        """The description of the set, with the texts that lie in the builder's folder."""
        texts = self.get_metadata()
        return prepared.Info(
            builder=self, description=texts.description, citation=texts.citation, **kwargs
        )

    def as_data_source(self, split: str | None = None, **kwargs) -> Any:
        """Random access to the examples of a split; see `prepared.Source`."""
        examples = super().as_data_source(split=split, **kwargs)
        if split not in self.info.splits:
            return examples
        return prepared.Source(examples, self.info.splits[split])

    @abc.abstractmethod
    def split_sizes(self) -> dict[str, int]:
        """Number of examples of each split."""

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        # The writer wants an info that knows the temporary folder of this moment.
        info = self._info()
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=EXAMPLES_PER_SHARD, file_format=self.info.file_format
        )
        splits = self._split_generators(dl_manager)
        sizes, limit = self.split_sizes(), download_config.max_examples_per_split
        total = sum(size if limit is None else min(size, limit) for size in sizes.values())
        empty = collections.Counter()
        bar = tqdm(total=total, desc=f"preparing {self.name}", unit=" images")
        with bar, faults.no_interruption_lost():
            for split, numbered in splits.items():
                writer.initialize_splits([split])
                examples = (example for _, example in itertools.islice(numbered, limit))
                while group := list(itertools.islice(examples, GROUP)):
                    writer.add_examples({split: group})
                    empty.update((split, name) for each in group for name in _empty_labels(each))
                    bar.update(len(group))
        writer.close_all()
        self.info.set_splits(info.splits)
        for (split, name), count in empty.items():
            print(f"{count} of the {sizes[split]} images of {split} have no {name}")

    # The bar says enough: TFDS prints two more lines around it.

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _empty_labels(example: dict[str, np.ndarray]) -> list[str]:
    """The labels of which an example has none. (Normals are missing where depth is.)"""
    missing = {"segmentation": -1, "depth": 0}
    return [name for name in missing if name in example and np.all(example[name] == missing[name])]
