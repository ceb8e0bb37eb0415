"""The base of the builders of a user's own sets: what they find is printed and shown on a page.

The page of a prepared set is next to its records. The page of a refused set is in the folder of the
builder, and is removed when a set of the same name is prepared.
"""

import abc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from datasets import alike, checking, preparing
from datasets.account import Account
from datasets.streaming import StreamingBuilder
from mtl_jax import files

PAGE = "found.html"
Example = dict[str, np.ndarray]
Kept = TypeVar("Kept", bound=Account)


class AccountedBuilder(StreamingBuilder, Generic[Kept], skip_registration=True):
    """A builder that keeps an account of the images that it reads."""

    @abc.abstractmethod
    def account(self) -> Kept:
        """Returns an account of which nothing has been read yet."""

    @abc.abstractmethod
    def readings(self, split: str, account: Kept) -> Iterator[tuple[Example | None, list[str]]]:
        """Yields an example of each image, None if it can't be read, and what is wrong with it.

        What is read, and every problem, is in the account before it is yielded.
        """

    def version_of_data(self) -> str:
        """Returns the name of the config, which has a digest of the data."""
        return self.builder_config.name

    def refused_page(self) -> Path:
        """Returns where the page of a set with problems goes."""
        # Without the digest of the images: the page of the next attempt takes its place.
        name = re.sub("-[0-9a-f]{12}(?=-|$)", "", self.builder_config.name)
        return Path(self.data_dir_root) / self.name / f"{name}-refused.html"

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        self._account = account = self.account()
        try:
            super()._download_and_prepare(dl_manager, download_config)
        except ValueError:
            if not account.problems:
                raise
            print("\n".join([*account.lines(), *alike.lines(account.problems, account.source)]))
            _write_page(self.refused_page(), account)
            line = f"{account.refusal()} (all of them, with pictures: {self.refused_page()})"
            raise ValueError(line) from None
        print("\n".join(account.lines()))
        # This is still the temporary folder.
        _write_page(Path(self.data_dir) / PAGE, account)
        self.refused_page().unlink(missing_ok=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        account = self._account
        found = {split: self.readings(split, account) for split in self.split_sizes()}
        examples = checking.checked(found)
        return {split: self._generate_examples(items) for split, items in examples.items()}

    def _generate_examples(self, examples: Iterator[Example]) -> Iterator[tuple[int, Example]]:
        yield from enumerate(examples)

    def _report_missing(self, lacking: Mapping[str, Mapping[str, int]]) -> None:
        """Does nothing, since the account reports it."""


def prepare(builder: AccountedBuilder, *, bytes_per_pixel: float) -> None:
    """Prepares the set if necessary, and then prints where its page is; see `preparing.prepare`."""
    new = not Path(builder.data_dir).exists()
    preparing.prepare(builder, bytes_per_pixel=bytes_per_pixel)
    if new:
        print(f"page: {Path(builder.data_dir) / PAGE}")


def _write_page(path: Path, account: Account) -> None:
    # Here, because Matplotlib takes long to import.
    from datasets import account_page

    files.write(path, account_page.make(account))
