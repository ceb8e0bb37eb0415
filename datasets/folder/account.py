"""What a folder holds, and what its problems suggest."""

import collections
import dataclasses
from typing import Self

import numpy as np

from datasets import account
from datasets.folder.labels import Reading
from datasets.folder.layout import FOLDERS, Item, Layout
from datasets.folder.masks import VOID
from datasets.folder.views import Views
from mtl_jax.tasks.images import divided

INTRINSICS_ADVICE = (
    "write a line NAME fx fy cx cy for each photo, with the name * for the others, into "
    "cameras.txt, or keep the focal length in the EXIF data of the photos, or set the horizontal "
    "angle of view in degrees as in `dataset`=folder:field_of_view=60"
)
# What photos lack -> the ways to say it.
HINTS = {
    "baseline": (
        ". Write the baseline in metres after the intrinsics in cameras.txt, or set that of all "
        "pairs as in `dataset`=folder:baseline=0.54"
    ),
    "intrinsics": f". For intrinsics, {INTRINSICS_ADVICE}",
}


@dataclasses.dataclass(kw_only=True)
class FolderAccount(account.Account):
    """Facts about the images of a folder; see `account.Account`.

    Attributes:
      layout: files of the folder.
      label_range: the lowest and the highest number in all masks, None without any.
      cameras: what says the intrinsics, "" if nothing does -> number of photos.
      far_centres: number of photos whose file of cameras puts the principal point far from the
        middle.
      pairs: split -> number of images with a right view.
      computed: number of images whose normals are computed from their depth.
      lacking: names of what photos need and lack, such as "intrinsics".
      sensor_range: metres that the largest number of a sensor's depth stands for.
      sensor: number of pixels with each of the 256 numbers of a sensor's depth, 0 = missing.
    """

    layout: Layout
    label_range: tuple[int, int] | None = None
    cameras: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    far_centres: int = 0
    pairs: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    computed: int = 0
    lacking: set[str] = dataclasses.field(default_factory=set)
    sensor_range: float
    sensor: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))

    @classmethod
    def of(
        cls,
        layout: Layout,
        entries: tuple[str, ...],
        stored: tuple[int, int],
        *,
        sensor_range: float,
    ) -> Self:
        """Returns an account of a folder of which nothing has been read yet.

        Args:
          layout: files of the folder.
          entries: names of the labels that an image can have.
          stored: height and width of the stored images.
          sensor_range: metres that the largest number of a sensor's depth stands for.
        """
        return cls(
            source=str(layout.root),
            setting=f"`folder`={layout.root}",
            images={split: len(items) for split, items in layout.items.items()},
            class_names=layout.class_names,
            entries=entries,
            stored=stored,
            problems=list(layout.problems),
            layout=layout,
            sensor_range=sensor_range,
        )

    def read(self, split: str, item: Item, reading: Reading) -> list[str]:
        """Counts what was read, and returns what is wrong with it."""
        problems = list(reading.problems)
        views = reading.views
        if views is not None:
            known = bool(views.known_by)
            problems += self.image(split, str(item.image), views.image, has_camera=known)
            self.cameras[views.known_by] += 1
            self.far_centres += _has_far_centre(views)
            self.pairs[split] += views.right is not None
            _, depth = divided(views.image)
            self.sensor += np.bincount(depth.ravel(), minlength=256)
        self.problems += problems
        self.lacking |= set(reading.lacking)
        self.computed += reading.lacks_normals
        if reading.label_range:
            low, high = self.label_range or reading.label_range
            self.label_range = min(low, reading.label_range[0]), max(high, reading.label_range[1])
        return problems

    def absent(self, entry: str) -> str:
        """Returns why no image has a kind of labels, as a clause."""
        return f"there are no files in {FOLDERS[entry]}/"

    def notes(self) -> list[str]:
        """Returns lines about cameras, right views and files that are not used."""
        lines = self._sensor_notes()
        if self.computed:
            images = account.counted(self.computed, "image")
            lines.append(f"normals: computed from the depth of {images}")
        if self.layout.stereo:
            parts = [
                f"{self.pairs[split]} of {n} images of {split}" for split, n in self.images.items()
            ]
            lines.append(f"right views: of {' and '.join(parts)}")
        known = [
            f"for {account.counted(n, 'photo')} from {source}"
            for source, n in self.cameras.items()
            if source
        ]
        unknown = self.cameras[""]
        said = [f"known {', '.join(known)}"] if known else []
        said += [
            f"unknown for {account.counted(unknown, 'photo')} (needed only for normals from depth "
            "and for stereo pairs)"
        ] * (unknown > 0)
        lines.append(f"cameras: {'; '.join(said)}")
        if self.layout.ignored:
            lines.append(f"not used: {account.listed(self.layout.ignored)}")
        return lines

    def colours(self) -> np.ndarray:
        """Returns the colours u8[n, 3] of the classes, those of palette.txt where it has them."""
        colours, coding = super().colours().copy(), self.layout.coding
        if coding is None or coding.colours is None:
            return colours
        # A class with several colours is drawn in the first one.
        for number in reversed(range(len(coding.colours))):
            index = number if coding.classes is None else coding.classes.get(number, VOID)
            if index != VOID:
                colours[index] = coding.colours[number]
        return colours

    def _sensor_notes(self) -> list[str]:
        """Returns a line about the depth that the network sees, if there is any."""
        total = self.sensor.sum()
        if not total:
            return []
        known = np.cumsum(self.sensor[1:])
        if not known[-1]:
            return ["depth of the sensor: missing at every pixel"]
        median = (1 + np.searchsorted(known, known[-1] / 2)) * self.sensor_range / 255
        return [
            f"depth of the sensor: median {median:.3g} m, missing at {self.sensor[0] / total:.1%} "
            f"and {self.sensor_range:g} m or more at {self.sensor[255] / total:.1%} of the pixels"
        ]

    def warnings(self) -> list[str]:
        """Returns what is probably wrong, but may be intended."""
        lines = super().warnings()
        if self.far_centres:
            lines.append(
                f"WARNING: the principal point of {account.counted(self.far_centres, 'photo')} is "
                "far from the middle: does the file of cameras have the pixels of the photos?"
            )
        if 2 * max(self.sensor[1], self.sensor[255]) > self.sensor[1:].sum():
            lines.append(
                "WARNING: most depths of the sensor are as small or as large as the network can "
                "see: are depth_scale and sensor_range right, as in "
                "folder:channels=4,depth_scale=1000,sensor_range=10?"
            )
        return lines

    def hint(self) -> str:
        """Returns what to do about cameras, and what the numbers in the masks suggest."""
        return "".join(HINTS[name] for name in sorted(self.lacking)) + self._label_hint()

    def _label_hint(self) -> str:
        count = len(self.class_names)
        if self.label_range == (1, count):
            return (
                f". The masks hold 1 to {count} and classes.txt names {count} classes: classes are "
                "counted from 0, so subtract 1, or list OLD NEW in mapping.txt, or name class 0 in "
                "the first line of classes.txt"
            )
        if self.label_range is not None and self.label_range[1] >= count:
            return (
                f". The masks hold {self.label_range[0]} to {self.label_range[1]} and classes.txt "
                f"names {count} classes, which are 0 to {count - 1}: if one of the numbers marks "
                f"pixels without a label, set it as in `dataset`=folder:ignore_label="
                f"{self.label_range[1]}; or list the class of each number in mapping.txt"
            )
        return ""

    def depth_question(self) -> str:
        """Returns what to check if depth is unusual."""
        return (
            "is depth_scale right? Whole numbers are divided by it to give metres, as in "
            "folder:depth_scale=1000; other numbers must be metres"
        )


def _has_far_centre(views: Views) -> bool:
    """Returns whether the principal point is outside of the middle half of the photo."""
    height, width = views.image.shape[:2]
    across, down = views.intrinsics[2:] / (width, height)
    return bool(views.known_by) and not (0.25 < across < 0.75 and 0.25 < down < 0.75)
