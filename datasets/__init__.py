"""The data sets: one table of their names, options, sizes and class counts.

    made = datasets.builder("rooms:train=40,test=8", image_size=(96, 128), data_dir="data")
    datasets.prepare(made)

A data set of your own is a function that returns `Examples`, chosen as `FILE.py:FUNCTION`. The
builders need TensorFlow Datasets, which is imported only when a set is built.
"""

import functools
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets.examples import Examples
from mtl_jax.data.outline import Outline
from mtl_jax.weighting import options

if TYPE_CHECKING:
    from datasets.streaming import StreamingBuilder


class Choice(NamedTuple):
    """A data set and the options that its builder's config takes."""

    name: str
    config: Mapping[str, Any]


def nyu_depth_v2(*, layout: str = "labeled", classes: int = 13) -> Choice:
    """NYU-Depth V2, 288x384 pixels by default.

    Args:
      layout: "labeled", from the official .mat file, or "mtan", from the .npy files of the
        multi-task literature.
      classes: number of classes of the segmentation, 13 or, with the official file, 40.
    """
    return Choice("nyu_depth_v2", {"layout": layout, "classes": classes})


def rooms(
    *,
    train: int = 1000,
    test: int = 200,
    stream: bool = False,
    textures: bool = True,
    light: bool = True,
) -> Choice:
    """Rendered rooms, 96x128 pixels by default.

    Args:
      train: number of training images.
      test: number of test images.
      stream: whether each epoch has `train` new rooms, rendered in front of each step.
      textures: whether surfaces have patterns; otherwise each has a single colour.
      light: whether the rooms are lit, with shading and shadows; otherwise a surface looks the same
        wherever it is.
    """
    config = {"train": train, "test": test, "stream": stream}
    return Choice("rooms", {**config, "textures": textures, "light": light})


def kitti_stereo(*, classes: int = 0) -> Choice:
    """The stereo pairs of KITTI 2015, 128x416 pixels by default.

    Args:
      classes: number of classes of the segmentation, 7 or 19; 0 for none.
    """
    return Choice("kitti_stereo", {"classes": classes})


def cityscapes(*, layout: str = "official", classes: int = 19, content: str = "stereo") -> Choice:
    """Cityscapes, 128x256 pixels by default.

    Args:
      layout: "official", from the downloads, or "mtan", from the .npy files of the multi-task
        literature, whose depth is inverse.
      classes: number of classes of the segmentation, 7 or 19.
      content: of the official files, "stereo", "depth" (without the right views) or "segmentation"
        (without disparity, too).
    """
    return Choice("cityscapes", {"layout": layout, "classes": classes, "content": content})


def waymo(*, manual_dir: str | Path | None = None, camera: str = "front", every: int = 0) -> Choice:
    """Waymo Open Dataset v2 from its Parquet files, 320x480 pixels by default.

    Args:
      manual_dir: the folder of the files.
      camera: "front", "front_left", "front_right", "side_left" or "side_right"; the last two have
        224x480 pixels by default.
      every: each Nth frame of a segment, with or without labels; 0: the frames with segmentation
        labels.
    """
    return Choice("waymo", {"manual_dir": manual_dir, "camera": camera, "every": every})


def folder(
    *,
    path: str | Path | None,
    depth_scale: float = 1000.0,
    ignore_label: int = 255,
    normals: str = "files",
    field_of_view: float = 0.0,
    baseline: float = 0.0,
    channels: int = 3,
    sensor_range: float = 10.0,
) -> Choice:
    """A folder of photos with masks, depth and normals, of their own size by default.

    Args:
      path: the folder; see its layout in datasets/folder/README.md.
      depth_scale: what whole numbers of depth are divided by to give metres.
      ignore_label: number of the pixels of a mask without a label.
      normals: "files", or "depth" to compute those of images with depth but no file of normals.
      field_of_view: horizontal, in degrees, of photos whose camera is not known otherwise; 0 if it
        is not known either.
      baseline: metres between the cameras of stereo pairs, unless the file of cameras has it.
      channels: of the images: 3; 1 to make them grey; or 4 to add the depth in sensor_depth/ to
        what the network sees.
      sensor_range: largest depth in metres that it can see there.
    """
    config = {"path": path, "depth_scale": depth_scale, "ignore_label": ignore_label}
    config |= {"normals": normals, "field_of_view": field_of_view, "baseline": baseline}
    config |= {"channels": channels, "sensor_range": sensor_range}
    return Choice("folder", config)


DATASETS = {
    "nyu_depth_v2": nyu_depth_v2,
    "rooms": rooms,
    "kitti_stereo": kitti_stereo,
    "cityscapes": cityscapes,
    "waymo": waymo,
    "folder": folder,
}
# Arguments of the table's functions that are settings of their own and not options of a name.
CONTEXT = ("path", "manual_dir")


class Terms(NamedTuple):
    """What a user of a trained network must know about its data.

    Attributes:
      licence: in a sentence.
      limits: what the data do not prepare a network for, in sentences.
    """

    licence: str
    limits: tuple[str, ...]


TERMS = {
    "nyu_depth_v2": Terms(
        "NYU-Depth V2 was published for research without a licence: ask its authors before other "
        "uses, and cite Silberman et al. (ECCV 2012).",
        (
            "It has seen photographs of rooms by one camera, a Kinect, of things 0.7 to 10 m away: "
            "other cameras, close views and the outdoors are unknown to it.",
        ),
    ),
    "rooms": Terms(
        "The training images were rendered by mtl_jax and have its licence.",
        (
            "It has seen rendered rooms only: on real photographs the results can be completely "
            "wrong.",
        ),
    ),
    "kitti_stereo": Terms(
        "KITTI is under CC BY-NC-SA 3.0, which excludes commercial use; cite Menze and Geiger "
        "(CVPR 2015).",
        (
            "It has seen streets in and around one city from the roof of a car, in daylight: other "
            "places and points of view are unknown to it.",
        ),
    ),
    "cityscapes": Terms(
        "Cityscapes may be used only for non-commercial purposes, such as research and teaching, "
        "after registration; cite Cordts et al. (CVPR 2016).",
        (
            "It has seen streets of German cities and their neighbours from behind the windscreen "
            "of a car, on dry days: other places, weather and points of view are unknown to it.",
        ),
    ),
    "waymo": Terms(
        "The Waymo Open Dataset is under the Waymo Dataset License Agreement for Non-Commercial "
        "Use: read what it says about trained networks before you pass one on, and cite Sun et al. "
        "(CVPR 2020) and Mei et al. (ECCV 2022).",
        (
            "It has seen streets of a few cities of the USA from the roof of a car: other places "
            "and points of view are unknown to it.",
        ),
    ),
    "folder": Terms(
        "The network was trained on somebody's own images, whose licence is theirs to state.",
        ("It has seen only images like those that it was trained on.",),
    ),
}
TERMS["arrays"] = TERMS["folder"]


def terms(text: str) -> Terms:
    """Returns the terms of a data set."""
    name = "arrays" if options.is_own(text, DATASETS) else options.parts(text)[0]
    return TERMS.get(name, Terms("The training data have their own licence.", ()))


def parse(text: str) -> str:
    """Returns the canonical text of a data set, without options at their defaults.

    The text of the user's own function is returned as it is: its file is not executed yet.

    Raises:
      ValueError: for an unknown name or option.
    """
    if options.is_own(text, DATASETS):
        return text
    return str(options.parse(text, DATASETS, context=CONTEXT, own=True))


def builder(
    chosen: str | Examples,
    *,
    image_size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    folder: str | Path | None = None,
    manual_dir: str | Path | None = None,
) -> "StreamingBuilder":
    """Returns the TFDS builder of a data set; nothing is written yet.

    Args:
      chosen: name of a set in `DATASETS` with options, such as `rooms:train=400,test=100`;
        `FILE.py:FUNCTION`, a function that returns `Examples`; or `Examples` themselves.
      image_size: height and width of the images in pixels; None means the set's own.
      data_dir: folder of prepared sets; None means that of TFDS.
      folder: folder of your own images, read only by the set `folder`.
      manual_dir: folder of files that were downloaded by hand; here only the set `waymo` needs it,
        to count its images. `prepare` needs it for all such sets.

    Raises:
      ValueError: for a name, option or size that the set does not have.
    """
    text = chosen if isinstance(chosen, str) else "examples"
    if isinstance(chosen, str) and not options.is_own(chosen, DATASETS):
        choice = options.parse(chosen, DATASETS, context=CONTEXT, own=True)
        places = {"path": folder, "manual_dir": manual_dir}
        own = {key: places[key] for key in CONTEXT if key in options.keywords(choice.factory)}
        name, config = choice.factory(**choice.options, **own)
    else:
        name, config = "arrays", _own(chosen) if isinstance(chosen, str) else {"given": chosen}
    size = {} if image_size is None else dict(zip(("height", "width"), image_size, strict=True))
    module = _module(name)
    try:
        made = module.config(**config, **size)
    except ValueError as error:
        about_size = image_size is not None and any(word in str(error) for word in size)
        what = f"`image_size`={_size(image_size)}" if about_size else f"`dataset`={text}"
        raise ValueError(f"{what}: {error}") from None
    return module.Builder(config=made, data_dir=data_dir and Path(data_dir).expanduser())


# Several modes ask for the builder more than once, and the function may read many files.
@functools.lru_cache(maxsize=1)
def _own(text: str) -> dict[str, Any]:
    """Returns the arguments of the config of a set by the user's own function.

    Raises:
      ValueError: if there is no such function, or it does not return `Examples`.
    """
    choice = options.parse(text, {}, own=True)
    try:
        given = choice.factory(**choice.options)
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"`dataset`={text} raises {why}") from error
    if not isinstance(given, Examples):
        raise ValueError(
            f"`dataset`={text} returns {type(given).__name__}, where datasets.Examples is expected"
        )
    place = choice.name.rpartition(":")[0]
    return {"given": given, "source": str(choice), "code": _text_of(place)}


# Once, as the file is executed once: a later change of it is not what was executed.
@functools.cache
def _text_of(place: str) -> str:
    """Returns the text of a Python file or, if it is in one, a module; else ""."""
    path = place if place.endswith(".py") else importlib.import_module(place).__file__
    return Path(path).read_text(encoding="utf-8") if path and path.endswith(".py") else ""


def parse_size(text: str) -> tuple[int, int]:
    """Returns height and width of a text such as `96x128`.

    Raises:
      ValueError: for any other text.
    """
    found = re.fullmatch("([0-9]{1,6})x([0-9]{1,6})", text)
    if not found or not all(map(int, found.groups())):
        raise ValueError("give HEIGHTxWIDTH in pixels, such as 96x128")
    return int(found[1]), int(found[2])


def outline(made: "StreamingBuilder") -> Outline:
    """Returns the facts that a builder knows about its data set, prepared or not."""
    sizes, config = made.split_sizes(), made.builder_config
    return Outline(
        train=sizes["train"],
        test=sizes["test"],
        image_size=(config.height, config.width),
        class_names=tuple(made.info.metadata["class_names"]),
        channels=made.info.features["image"].shape[-1],
        entries=made.known_entries(),
        data=made.version_of_data(),
        advice=made.advice(),
        stream=made.stream(),
    )


def prepare(made: "StreamingBuilder", *, manual_dir: str | Path | None = None) -> None:
    """Downloads, converts or renders a data set if necessary.

    Args:
      made: from `builder`.
      manual_dir: folder of files that were downloaded by hand; None: `downloads/manual` in the
        builder's data_dir.

    Raises:
      ValueError: in one line, for files that are missing, incomplete or wrong.
      OSError: in one line, for a failed download, a file that can't be read or a full disk.
    """
    _module(made.name).prepare(made, manual_dir and Path(manual_dir).expanduser())


def check_prepared(made: "StreamingBuilder") -> None:
    """Refuses a data set that is not prepared; writes nothing.

    Raises:
      ValueError: naming the folder where it should be.
    """
    if not Path(made.data_dir).exists():
        raise ValueError(
            f"there is no prepared data set in {made.data_dir}: give the `data_dir` that has it, "
            "or make it with `mode`=prepare"
        )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"datasets.{name}.{name}_dataset_builder")


def _size(image_size: tuple[int, int]) -> str:
    return "x".join(map(str, image_size))
