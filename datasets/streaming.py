"""The base of the TFDS builders here: it writes examples one by one, without TensorFlow."""

import abc
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from datasets import prepared, threads
from mtl_jax import faults, files
from mtl_jax.data import Stream
from mtl_jax.data.splits import image_digest
from mtl_jax.tasks import TASKS

EXAMPLES_PER_SHARD = 100
# The shards of a large split are larger, since all of them are open while it is read, and many
# systems let a process open only 1024 files.
MOST_SHARDS = 200
# Examples per write, since the writer updates the info on disk after every write.
GROUP = 20
# Name of a label -> its value where it is missing; that of all other entries is 0.
MISSING = {entry.name: entry.missing for task in TASKS.values() for entry in task.labels}


def tensor(shape: tuple[int, ...], dtype: type[np.generic]) -> tfds.features.Tensor:
    """Returns the feature of an array whose bytes are stored; the files compress whole examples."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")


class Packed(NamedTuple):
    """An example as it is written.

    Attributes:
      record: its bytes in a file.
      digest: `image_digest` of its image.
      lacking: names of the entries that are missing everywhere in it; the image never is.
    """

    record: bytes
    digest: bytes
    lacking: list[str]


class Writer(tfds.core.SequentialWriter):
    """A writer of examples that other threads have packed."""

    def pack(self, example: Mapping[str, np.ndarray]) -> Packed:
        """Returns an example in the form in which it is written; may be called by any thread."""
        encoded = self._ds_info.features.encode_example(example)
        record = self._serializer.serialize_example(encoded)
        return Packed(record, image_digest(example["image"]), _lacking(example))

    def add_packed(self, name: str, examples: Iterable[Packed]) -> None:
        """Writes examples to a split, as `add_examples` does those that are not packed."""
        split = self._splits[name]
        for example in examples:
            split.add_example(example.record)
            if split.current_shard.num_examples >= self._max_examples_per_shard:
                split.close_shard()
        self._write_splits_metadata()


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
        """Returns the names of its entries, without those that are missing in all examples."""
        return tuple(self.info.features)

    def version_of_data(self) -> str:
        """Returns a text that differs if the data do; "" where the config determines them."""
        return ""

    def advice(self) -> dict[str, str]:
        """Returns how the set can have what it lacks, by the name of the entry."""
        return {}

    def stream(self) -> Stream | None:
        """Returns the training images that are made while training; None if they are read."""
        return None

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        # The writer needs an info that knows the current temporary folder.
        info = self._info()
        sizes, limit = self.split_sizes(), download_config.max_examples_per_split
        writer = Writer(
            info,
            max_examples_per_shard=max(
                EXAMPLES_PER_SHARD, math.ceil(max(sizes.values()) / MOST_SHARDS)
            ),
            file_format=self.info.file_format,
        )
        splits = self._split_generators(dl_manager)
        total = sum(size if limit is None else min(size, limit) for size in sizes.values())
        found: dict[str, dict[str, int]] = {}
        bar = tqdm(total=total, desc=f"preparing {self.name}", unit=" images")
        with bar, faults.no_interruption_lost():
            for split, numbered in splits.items():
                writer.initialize_splits([split])
                examples = (example for _, example in itertools.islice(numbered, limit))
                packed = threads.in_order(writer.pack, examples)
                digests, lacking = bytearray(), {name: [] for name in info.features}
                while group := list(itertools.islice(packed, GROUP)):
                    writer.add_packed(split, group)
                    for each in group:
                        for name in each.lacking:
                            lacking[name].append(len(digests) // prepared.DIGEST_BYTES)
                        digests += each.digest
                    bar.update(len(group))
                # Whether images are in both splits, and how many have labels, is then known
                # without reading them.
                folder = Path(self.data_dir)
                files.write(prepared.digests_path(folder, split), bytes(digests))
                files.write(prepared.lacking_path(folder, split), json.dumps(lacking))
                found[split] = {name: len(numbers) for name, numbers in lacking.items()}
        writer.close_all()
        self.info.set_splits(info.splits)
        self._report_missing(found)

    def _report_missing(self, lacking: Mapping[str, Mapping[str, int]]) -> None:
        """Prints how many images of each split lack an entry that others have."""
        sizes = self.split_sizes()
        for split, counts in lacking.items():
            for name, count in counts.items():
                if count:
                    print(f"{count} of the {sizes[split]} images of {split} have no {name}")

    # The progress bar is enough: TFDS would print two more lines around it.

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _lacking(example: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names of entries that are missing everywhere; the image never is."""
    arrays = {name: array for name, array in example.items() if name != "image"}
    return [name for name, array in arrays.items() if np.all(array == MISSING.get(name, 0))]
