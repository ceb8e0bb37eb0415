"""What a folder holds, and what its problems suggest."""

import dataclasses
from typing import Self

from datasets import account
from datasets.folder.labels import Reading
from datasets.folder.layout import FOLDERS, Item, Layout


@dataclasses.dataclass(kw_only=True)
class FolderAccount(account.Account):
    """Facts about the images of a folder; see `account.Account`.

    Attributes:
      layout: files of the folder.
      label_range: the lowest and the highest number in all masks, None without any.
    """

    layout: Layout
    label_range: tuple[int, int] | None = None

    @classmethod
    def of(cls, layout: Layout, stored: tuple[int, int]) -> Self:
        """Returns an account of a folder of which nothing has been read yet.

        Args:
          layout: files of the folder.
          stored: height and width of the stored images.
        """
        return cls(
            source=str(layout.root),
            setting=f"`folder`={layout.root}",
            images={split: len(items) for split, items in layout.items.items()},
            class_names=layout.class_names,
            entries=layout.entries,
            stored=stored,
            problems=list(layout.problems),
            layout=layout,
        )

    def read(self, split: str, item: Item, reading: Reading) -> list[str]:
        """Counts what was read, and returns what is wrong with it."""
        problems = list(reading.problems)
        if reading.image is not None:
            has_camera = reading.focal_length is not None
            problems += self.image(split, str(item.image), reading.image, has_camera=has_camera)
        self.problems += problems
        if reading.label_range:
            low, high = self.label_range or reading.label_range
            self.label_range = min(low, reading.label_range[0]), max(high, reading.label_range[1])
        return problems

    def absent(self, entry: str) -> str:
        """Returns why no image has a kind of labels, as a clause."""
        return f"there are no files in {FOLDERS[entry]}/"

    def notes(self) -> list[str]:
        """Returns lines about photos without a camera and about files that are not used."""
        lines = []
        if self.without_camera:
            lines.append(
                f"focal length: {self.without_camera} photos do not say theirs, and 60° are "
                "taken for the horizontal field of view"
            )
        if self.layout.ignored:
            lines.append(f"not used: {account.listed(self.layout.ignored)}")
        return lines

    def hint(self) -> str:
        """Returns what the numbers in the masks suggest."""
        count = len(self.class_names)
        if self.label_range == (1, count):
            return (
                f". The masks hold 1 to {count} and classes.txt names {count} classes: classes are "
                "counted from 0, so subtract 1, or name class 0 in the first line of classes.txt"
            )
        if self.label_range is not None and self.label_range[1] >= count:
            return (
                f". The masks hold {self.label_range[0]} to {self.label_range[1]} and classes.txt "
                f"names {count} classes, which are 0 to {count - 1}: if one of the numbers marks "
                f"pixels without a label, set it as in `dataset`=folder:ignore_label="
                f"{self.label_range[1]}"
            )
        return ""

    def depth_question(self) -> str:
        """Returns what to check if depth is unusual."""
        return (
            "is depth_scale right? Whole numbers are divided by it to give metres, as in "
            "`dataset`=folder:depth_scale=1000; other numbers must be metres"
        )
