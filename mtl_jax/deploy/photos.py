"""Finds photos and reads them, from any file that Pillow can decode.

What a file is depends on its content, not on its name. All photos become 8-bit red, green and
blue, upright as their EXIF data asks; colour profiles are not applied.
"""

import glob
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
# Formats that other programs decode, which a photo from an unknown source must not start.
LEFT_OUT = ("EPS", "WMF")
# In millimetres, of the film to which the focal lengths of all cameras are converted.
FILM_DIAGONAL = math.hypot(36.0, 24.0)
# Modes of more than 8 bits -> the largest number, which is white.
LARGEST = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1.0}
# Values of a TIFF's tags: the largest number of grey pixels is black; the picture is a preview.
WHITE_IS_ZERO, REDUCED = 0, 1
REFUSED = {"LAB": "colours are CIELAB; save it as RGB"}
# What makes a photo upright, by its orientation in EXIF.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST_REASON = 120


class Unreadable(Exception):
    """A file that is no photo, with the reason."""


class Photo(NamedTuple):
    """A photo.

    Attributes:
      path: path of its file.
      pixels: uint8[H, W, 3], upright; uint8[H, W, 4] with the depth of a sensor.
      focal_length: in pixels, None if the file does not say it.
      notes: what was done to the photo, such as "transparent, shown on white".
    """

    path: Path
    pixels: np.ndarray
    focal_length: float | None
    notes: tuple[str, ...]


def find(text: str) -> tuple[list[Path], list[Path]]:
    """Returns the files of an input in the order of their names, and those that were left out.

    Args:
      text: a file, a folder, or a pattern such as `photos/*.jpg`; `**` stands for any folders. From
        a folder, all files are taken that are not hidden and have the suffix of a photo; its
        subfolders are not searched.

    Raises:
      ValueError: if there is none.
    """
    place = Path(text).expanduser()
    # Also if it is a broken link, or its name has the characters of a pattern.
    if os.path.lexists(place) and not place.is_dir():
        return [place], []
    if not place.is_dir():
        # Broken links are found, too.
        found = sorted(map(Path, glob.glob(str(place), recursive=True)))
        if not found:
            raise ValueError(f"`input`={text}: no file has this name or pattern")
        return [path for path in found if not path.is_dir() or path.suffix], []
    names = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    suffixes = Image.registered_extensions()
    photos = [path for path in names if path.suffix.lower() in suffixes]
    if not photos:
        raise ValueError(f"`input`={text}: the folder has no file with the suffix of a photo")
    return photos, [path for path in names if path.suffix.lower() not in suffixes]


def is_video(path: Path) -> bool:
    """Returns whether a file is a video by its name."""
    return path.suffix.lower() in VIDEOS


def read(path: Path, *, most_pixels: int | None = None) -> Photo:
    """Reads a photo.

    Args:
      path: its file.
      most_pixels: a photo with more is not decoded; by default the limit is that of Pillow.

    Raises:
      Unreadable: if the file can't be opened or decoded, or what its numbers mean is not known.
    """
    try:
        check_file(path)
        with Image.open(path, formats=_formats()) as image:
            if most_pixels is not None and math.prod(image.size) > most_pixels:
                raise Unreadable(f"more than {most_pixels / 1e6:g} megapixels")
            return _decode(path, image)
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not a photo of a known format") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise Unreadable(f"more than {most:.0f} megapixels") from error
    except MemoryError as error:
        raise Unreadable("too large for this machine's memory") from error
    # Decoders of broken files raise errors of any kind.
    except Exception as error:
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        kind = f"its decoder fails ({type(error).__name__})"
        raise Unreadable(text[:LONGEST_REASON] or kind) from error


def check_file(path: Path) -> None:
    """Refuses anything but a file with content; a pipe, for example, would block its reader.

    Raises:
      Unreadable: with the reason.
      OSError: if the file does not exist or its folder can't be entered.
    """
    if path.is_symlink() and not path.exists():
        raise Unreadable(f"a link to {os.readlink(path)}, which is missing")
    if path.is_dir():
        raise Unreadable("a folder")
    size = path.stat().st_size
    if not path.is_file():
        raise Unreadable("neither a file nor a folder")
    if not size:
        raise Unreadable("the file is empty")


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in LEFT_OUT]


def _decode(path: Path, image: Image.Image) -> Photo:
    """Decodes an opened photo: its first frame."""
    if tiff_tag(image, ExifTags.Base.NewSubfileType) == REDUCED:
        raise Unreadable("its first picture is a preview, as in raw photos; save it as JPEG or PNG")
    frames = getattr(image, "n_frames", 1)
    notes = [f"the first of {frames} frames"] if frames > 1 else []
    length = exif_entry(image, ExifTags.Base.FocalLengthIn35mmFilm, ExifTags.IFD.Exif)
    image.load()
    rgb = in_colour(image, notes)
    # Some decoders turn the picture themselves when they load it, and then say so here.
    turn = TURNS.get(exif_entry(image, ExifTags.Base.Orientation))
    if turn is not None:
        rgb = rgb.transpose(turn)
    pixels = np.asarray(rgb)
    return Photo(path, pixels, focal_length_in_pixels(length, rgb.size), tuple(notes))


def exif_entry(image: Image.Image, tag: int, group: int | None = None) -> Any:
    """Returns an entry of the EXIF data; None where they lack it or are garbage."""
    try:
        exif = image.getexif()
        return (exif if group is None else exif.get_ifd(group)).get(tag)
    # The photo itself may be intact.
    except Exception:
        return None


def tiff_tag(image: Image.Image, tag: int) -> Any:
    """Returns an entry of a TIFF; None where it lacks it, and for other formats."""
    return image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def says_focal_length(path: Path) -> bool:
    """Returns whether the EXIF data of a photo say its focal length; its pixels are not read."""
    try:
        with Image.open(path, formats=_formats()) as image:
            length = exif_entry(image, ExifTags.Base.FocalLengthIn35mmFilm, ExifTags.IFD.Exif)
            return focal_length_in_pixels(length, image.size) is not None
    # The error is reported when the photo is read.
    except Exception:
        return False


def in_colour(image: Image.Image, notes: list[str]) -> Image.Image:
    """Returns a loaded image in the mode RGB, and adds to the notes what was decided.

    Raises:
      Unreadable: if it is not known which number is white.
    """
    if image.mode in REFUSED:
        raise Unreadable(REFUSED[image.mode])
    if image.mode in LARGEST:
        # Pillow inverts such a TIFF only if it has 8 bits or fewer.
        inverted = tiff_tag(image, ExifTags.Base.PhotometricInterpretation) == WHITE_IS_ZERO
        return grey(np.asarray(image), LARGEST[image.mode], notes, inverted=inverted)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if np.asarray(layer.getchannel("A")).min() < 255:
            notes.append("transparent parts are white")
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(layer)
        return background.convert("RGB")
    return image.convert("RGB")


def grey(
    numbers: np.ndarray, largest: float, notes: list[str], *, inverted: bool = False
) -> Image.Image:
    """Returns numbers from 0 (black) to the largest (white) as grey pixels in the mode RGB.

    Args:
      numbers: [H, W].
      largest: the largest number that a pixel can have.
      notes: what was decided; that which number is white is added.
      inverted: whether 0 is white and the largest number black.

    Raises:
      Unreadable: for numbers out of this range.
    """
    low, high = float(numbers.min()), float(numbers.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Unreadable("some of its numbers are not finite")
    black, white = (largest, 0) if inverted else (0, largest)
    if low < 0 or high > largest:
        raise Unreadable(
            f"numbers from {low:g} to {high:g} where black is {black:g} and white {white:g}: "
            "scale them"
        )
    notes.append(f"{white:g} is white")
    eight = np.rint(numbers * (255.0 / largest)).astype(np.uint8)
    return Image.fromarray(255 - eight if inverted else eight).convert("RGB")


def focal_length_in_pixels(length: float | None, size: Sequence[int]) -> float | None:
    """Returns the focal length of an image of some width and height in pixels.

    Args:
      length: of a lens with the same diagonal angle of view on 35 mm film, in millimetres; 0 or
        None if it is not known.
      size: width and height in pixels.
    """
    if not isinstance(length, int | float) or not 0 < length < math.inf:
        return None
    return length / FILM_DIAGONAL * math.hypot(*size)
