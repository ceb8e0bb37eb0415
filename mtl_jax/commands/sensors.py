"""Photos with the depth of a sensor, for networks that see both."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mtl_jax.commands.loading import dataset_of
from mtl_jax.deploy import photos
from mtl_jax.deploy.photos import Photo, Unreadable
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.runs.settings import Settings, folder_of
from mtl_jax.tasks.images import COLOURS, with_depth
from mtl_jax.weighting import options


def reader_of(settings: Settings, predictor: Predictor) -> Callable[[Path], Photo]:
    """Returns the function that reads a photo as the network sees it.

    Raises:
      ValueError: if the network needs depth maps and there are none, or the other way round.
    """
    given = settings.sensor_depth
    if predictor.channels <= COLOURS:
        if given:
            raise ValueError(f"`sensor_depth`={given}: the network of this run sees no depth")
        return photos.read
    # Here, because the library can be installed without them, and other networks don't need them.
    import datasets

    text = dataset_of(folder_of(settings))
    if options.is_own(text, datasets.DATASETS):
        raise ValueError(
            f"only {text} knows the fourth channel of the images of this run: call "
            f"mtl_jax.load({str(folder_of(settings))!r}) with arrays"
        )
    if not given:
        raise ValueError(
            "the network of this run sees depth next to the colours: give the folder of the depth "
            "maps of the photos as `sensor_depth`"
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ValueError(f"`sensor_depth`={given} is not a folder")
    chosen = options.parse(text, datasets.DATASETS, context=datasets.CONTEXT)
    config = chosen.factory(path=None, **chosen.options).config
    scale, largest = config["depth_scale"], config["sensor_range"]
    return partial(read, folder=folder, scale=scale, largest=largest)


def check_without(predictor: Predictor, what: str) -> None:
    """Refuses a network that sees depth, where the input has none.

    Raises:
      ValueError: naming the input.
    """
    if predictor.channels > COLOURS:
        raise ValueError(f"{what} has no depth, which the network of this run sees")


def read(path: Path, *, folder: Path, scale: float, largest: float) -> Photo:
    """Reads a photo and adds the depth map of its name as the fourth channel.

    Args:
      path: file of the photo.
      folder: folder of the depth maps.
      scale: what whole numbers of depth are divided by to give metres.
      largest: depth in metres that the largest number of the channel stands for.

    Raises:
      Unreadable: if one of the files can't be read, or they don't fit together.
    """
    # As in `reader_of`.
    from datasets.folder import labels, layout

    photo = photos.read(path)
    found = [folder / f"{path.stem}{suffix}" for suffix in layout.SUFFIXES[layout.SENSOR]]
    found = [file for file in found if file.exists()]
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise Unreadable(f"{what} of its name in {folder}")
    try:
        depth = labels.read_depth(found[0], scale)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    if depth.shape != photo.pixels.shape[:2]:
        (rows, columns), (height, width) = depth.shape, photo.pixels.shape[:2]
        raise Unreadable(f"{found[0]} is {rows}x{columns}, and the photo {height}x{width}")
    return photo._replace(pixels=with_depth(photo.pixels, depth, largest))
