"""Which files of a folder belong together, by their names alone; see README.md."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datasets.folder import cameras, masks, texts
from datasets.folder.cameras import Camera
from datasets.folder.masks import MAPPING, PALETTE, Coding
from mtl_jax.deploy import photos

CLASSES = "classes.txt"
# Files of the folder itself.
TEXTS = (CLASSES, PALETTE, MAPPING, *cameras.FILES)
# What an example calls its labels -> the folder that holds them, and the suffixes of its files.
FOLDERS = {"segmentation": "masks", "depth": "depth", "normals": "normals"}
RIGHT, SENSOR = "image_right", "sensor_depth"
SENSOR_FOLDER = "sensor_depth"
SUFFIXES = {
    "segmentation": (".png",),
    "depth": (".png", ".npy", ".tif", ".tiff", ".exr"),
    "normals": (".png", ".npy"),
    RIGHT: tuple(Image.registered_extensions()),
}
SUFFIXES[SENSOR] = SUFFIXES["depth"]
# Split -> its folder. Without these folders, `TEST_SHARE` of the images are for testing.
SPLITS = {"train": "train", "test": "val"}
TEST_SHARE = 0.2
# Number of first images whose most common size decides that of all.
LOOKED_AT = 100
LONGEST_SIDE, SIZE_MULTIPLE = 512, 32
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


class Item(NamedTuple):
    """An image and what belongs to it.

    Attributes:
      image: path of its file.
      labels: name of labels -> path of their file, of those that it has.
      right: path of the right view, None without one.
      sensor: path of the depth that the network sees, None without it.
      camera: by the file of cameras, None if that has no line for the image.
    """

    image: Path
    labels: dict[str, Path]
    right: Path | None = None
    sensor: Path | None = None
    camera: Camera | None = None


class Layout(NamedTuple):
    """The files of a folder.

    Attributes:
      root: the folder.
      items: split -> its images, in the order of their names.
      class_names: the lines of classes.txt; none where there are no masks.
      coding: how pixels of masks become classes; None without masks, or if that is not known.
      entries: names of the labels of which there are files.
      stereo: whether there are right views.
      ignored: names of files and folders that are not used.
      problems: what is wrong, each with the name of the file.
      digest: hexadecimal digest of the path of the folder and the names, sizes and times of its
        files.
    """

    root: Path
    items: dict[str, tuple[Item, ...]]
    class_names: tuple[str, ...]
    coding: Coding | None
    entries: tuple[str, ...]
    stereo: bool
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    digest: str


@dataclasses.dataclass
class _Notes:
    """What is found while the folder is listed."""

    root: Path
    ignored: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    entries: set[str] = dataclasses.field(default_factory=set)


def find(root: Path, *, with_sensor: bool = False) -> Layout:
    """Lists a folder without opening an image.

    Args:
      root: the folder.
      with_sensor: whether the network sees the depth of a sensor, and then no right views.

    Raises:
      ValueError: in one line, if it has no images to train on and to test on, or if there are masks
        without a classes.txt that can be used.
    """
    notes, parts = _Notes(root), _parts(root)
    folders = FOLDERS | ({SENSOR: SENSOR_FOLDER} if with_sensor else {RIGHT: "images_right"})
    _ignore_others(root, ("images", *folders.values(), *TEXTS), notes)
    if "" not in parts:
        for name in ("images", *folders.values()):
            _ignore_others(root / name, parts, notes)
    images = {part: _images(root / "images" / part, notes) for part in parts}
    for part, files in images.items():
        if not files:
            raise ValueError(f"{root / 'images' / part} holds no photos")
    labels = {
        (entry, part): _labels(root / name, part, entry, images[part], notes)
        for entry, name in folders.items()
        for part in parts
    }
    if with_sensor and SENSOR not in notes.entries:
        raise ValueError(
            f"channels=4 adds the depth in {root / SENSOR_FOLDER} to the images, and there is none"
        )
    known = _read_cameras(root, images, notes)
    if "" in parts:
        images, labels = _divided(root, images[""], labels)
    items = {
        split: tuple(
            _item(path, "" if "" in parts else part, known, {e: labels[e, part] for e in folders})
            for path in images[part].values()
        )
        for split, part in SPLITS.items()
    }
    entries = tuple(entry for entry in FOLDERS if entry in notes.entries)
    for entry in sorted(notes.entries):
        if not labels[entry, SPLITS["train"]]:
            notes.problems.append(
                f"{root / folders[entry]} has no files for the images to train on: add some, "
                "or remove the folder to train without it"
            )
    names, coding = (), None
    if "segmentation" in entries:
        names = class_names(root)
        coding, problems = masks.coding(root, names)
        notes.problems += problems
    else:
        notes.ignored += [name for name in (PALETTE, MAPPING) if (root / name).exists()]
    return Layout(
        root=root,
        items=items,
        class_names=names,
        coding=coding,
        entries=entries,
        stereo=RIGHT in notes.entries,
        ignored=tuple(notes.ignored),
        problems=tuple(notes.problems),
        digest=_digest(root, _paths(root, (*items["train"], *items["test"]))),
    )


def _item(
    image: Path,
    part: str,
    known: Mapping[str, Camera],
    labels: Mapping[str, Mapping[str, Path]],
) -> Item:
    """Returns an image with what belongs to it.

    Args:
      image: path of its file.
      part: folder of its split, "" for none.
      known: cameras of the file of cameras.
      labels: name of labels -> their files by stem, with right views and the depth of a sensor.
    """
    found = {entry: files[image.stem] for entry, files in labels.items() if image.stem in files}
    right, sensor = found.pop(RIGHT, None), found.pop(SENSOR, None)
    return Item(image, found, right, sensor, cameras.camera_of(known, image, part))


def _paths(root: Path, items: Iterable[Item]) -> list[Path]:
    """Returns the paths of all files that are used."""
    paths = [
        path
        for item in items
        for path in (item.image, *item.labels.values(), item.right, item.sensor)
    ]
    texts_used = [root / name for name in TEXTS if (root / name).exists()]
    return [path for path in (*paths, *texts_used) if path is not None]


def _read_cameras(
    root: Path, images: Mapping[str, Mapping[str, Path]], notes: _Notes
) -> dict[str, Camera]:
    """Returns the cameras by the names of the images in their file; none without one."""
    path = cameras.find_file(root)
    if path is None:
        return {}
    names = {
        name
        for part, files in images.items()
        for image in files.values()
        for name in cameras.names_of(image, part)
    }
    found, problems = cameras.read(path, names)
    notes.problems += problems
    return found


def class_names(root: Path) -> tuple[str, ...]:
    """Returns the lines of classes.txt, or else the names in palette.txt.

    Raises:
      ValueError: in one line, if there is neither, or the file can't be used.
    """
    path = root / CLASSES
    if not path.exists() and (root / PALETTE).exists() and not (root / MAPPING).exists():
        palette, _ = masks.read_palette(root / PALETTE)
        if found := masks.names_of(palette):
            return found
    if not path.exists():
        raise ValueError(
            f"{path} is missing, and there are masks: write the name of each class in a line, that "
            f"of class 0 first, or, if the masks hold colours, lines R G B NAME into {PALETTE}"
        )
    names = tuple(texts.read(path).strip().splitlines())
    names = tuple(name.strip() for name in names)
    if not names:
        raise ValueError(f"{path} is empty")
    if not all(names):
        raise ValueError(f"{path}: line {names.index('') + 1} is empty")
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise ValueError(f"{path} names {repeated[0]!r} twice")
    return names


def has_cameras(layout: Layout) -> bool:
    """Returns whether the file of cameras, or EXIF data of the first photos, say a camera.

    Those of the images to train on count, since nothing is learned from others.
    """
    items = layout.items["train"]
    return any(item.camera for item in items) or any(
        photos.says_focal_length(item.image) for item in items[:LOOKED_AT]
    )


def usual_size(layout: Layout) -> tuple[int, int]:
    """Returns the height and width that most of the first images have, or less.

    The longer side has at most `LONGEST_SIDE` pixels, and both are rounded to multiples of
    `SIZE_MULTIPLE`.
    """
    sizes: list[tuple[int, int]] = []
    for item in layout.items["train"][:LOOKED_AT]:
        try:
            with Image.open(item.image) as image:
                width, height = image.size
                # Pillow gives the size of the upright photo for this format alone.
                upright = image.format == "TIFF"
                turned = not upright and image.getexif().get(ORIENTATION) in TURNED
        # The error is reported when the photo is read.
        except Exception:
            continue
        sizes.append((width, height) if turned else (height, width))
    if not sizes:
        return LONGEST_SIDE, LONGEST_SIDE
    size = max(sizes, key=sizes.count)
    scale = min(1.0, LONGEST_SIDE / max(size))
    height, width = (
        max(SIZE_MULTIPLE, round(scale * side / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in size
    )
    return height, width


def _parts(root: Path) -> tuple[str, ...]:
    """Returns the folders in images/ that hold the splits; "" for images/ itself.

    Raises:
      ValueError: if a folder is missing.
    """
    images = root / "images"
    if not images.is_dir():
        what = "has no folder images/" if root.is_dir() else "is not a folder"
        raise ValueError(
            f"`folder`={root} {what}: photos are expected in its images/train/ and images/val/"
        )
    found = [part for part in SPLITS.values() if (images / part).is_dir()]
    if not found:
        return ("",)
    missing = [part for part in SPLITS.values() if part not in found]
    if missing:
        raise ValueError(
            f"{images} has {found[0]}/ but no {missing[0]}/: make both, or put all photos into "
            "images/ itself, and a fifth of them will be for testing"
        )
    return tuple(found)


def _images(folder: Path, notes: _Notes) -> dict[str, Path]:
    files = _files(folder, tuple(Image.registered_extensions()), notes)
    lower: dict[str, str] = {}
    for stem, path in files.items():
        other = lower.setdefault(stem.lower(), stem)
        if other != stem:
            notes.problems.append(f"{path} and {files[other].name} differ only in case")
    return files


def _labels(
    folder: Path, part: str, entry: str, images: dict[str, Path], notes: _Notes
) -> dict[str, Path]:
    """Returns the files of labels of one part by their stems, which are those of images."""
    for name in SPLITS.values():
        if not part and (folder / name).is_dir():
            notes.problems.append(f"{folder / name} is a folder, where images/ has no {name}/")
    if not (folder / part).is_dir():
        return {}
    files = _files(folder / part, SUFFIXES[entry], notes)
    notes.entries |= {entry} if files else set()
    # These are not left out like other files: their images would count as having no label.
    notes.problems += [
        f"{path} is in none of the formats that are read from {folder.name}/: "
        f"{', '.join(SUFFIXES[entry])}"
        for path in sorted((folder / part).iterdir())
        if path.stem in images and path.suffix.lower() not in SUFFIXES[entry]
    ]
    unused = {_alike(stem): path for stem, path in images.items() if stem not in files}
    for stem, path in files.items():
        if stem not in images:
            other = unused.get(_alike(stem))
            why = " of the same name (suffixes may differ): rename or remove it"
            if other:
                why = (
                    f", but {other.name} differs only in case, leading zeros or spaces: rename one"
                )
            notes.problems.append(f"{path} has no image{why}")
    return {stem: path for stem, path in files.items() if stem in images}


def _alike(stem: str) -> str:
    """Returns a stem in lower case, without spaces and without zeros before its numbers."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(stem.lower().split()))


def _files(folder: Path, suffixes: tuple[str, ...], notes: _Notes) -> dict[str, Path]:
    """Returns the files with these suffixes by their stems, in the order of their names."""
    files: dict[str, Path] = {}
    usable = [
        path
        # By names, because comparing 100 000 paths takes seconds.
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()
    ]
    _ignore_others(folder, [path.name for path in usable], notes)
    for path in usable:
        if path.stem in files:
            notes.problems.append(f"{path} and {files[path.stem].name} have the same name")
        else:
            files[path.stem] = path
    return files


def _ignore_others(folder: Path, names: Iterable[str], notes: _Notes) -> None:
    """Notes what a folder, if it exists, holds besides these names."""
    known = set(names)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if name not in known:
            path = folder / name
            notes.ignored.append(f"{path.relative_to(notes.root)}{'/' * path.is_dir()}")


def _divided(
    root: Path, images: dict[str, Path], labels: dict[tuple[str, str], dict[str, Path]]
) -> tuple[dict[str, dict[str, Path]], dict[tuple[str, str], dict[str, Path]]]:
    """Returns images and labels by the part to which the digest of its name assigns an image.

    An image stays in its part when others are added, unless there are very few.
    """
    if len(images) < 2:
        raise ValueError(f"{root / 'images'} holds a single photo: at least two are needed")

    def share(stem: str) -> float:
        digest = hashlib.sha256(stem.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    order = sorted(images, key=share)
    count = sum(share(stem) < TEST_SHARE for stem in order)
    tested = set(order[: min(max(count, 1), len(order) - 1)])

    def divide(files: dict[str, Path], part: str) -> dict[str, Path]:
        wanted = part == SPLITS["test"]
        return {stem: path for stem, path in files.items() if (stem in tested) == wanted}

    parts = SPLITS.values()
    divided = {(e, part): divide(files, part) for (e, _), files in labels.items() for part in parts}
    return {part: divide(images, part) for part in parts}, divided


def _digest(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256(os.fsencode(root))
    for path in paths:
        try:
            stat = path.stat()
            facts = f"{stat.st_size} {stat.st_mtime_ns}"
        # A broken link, which is reported when it is read.
        except OSError:
            facts = ""
        digest.update(os.fsencode(path.relative_to(root)) + f"\0{facts}\0".encode())
    return digest.hexdigest()
