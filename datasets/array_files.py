"""Files that hold one array each. A file that can't be read completely is refused in one line."""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


class PngForm(NamedTuple):
    """What the header of a PNG states: e.g. "8-bit RGB", and height and width in pixels."""

    pixels: str
    size: tuple[int, int]


def npy_form(path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Returns type and shape of the array in a .npy file, which is as long as its header says.

    Raises:
      ValueError: in one line, for a file that is missing, unreadable, truncated or not a .npy file.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            length = path.stat().st_size - file.tell()
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        # Random bytes make NumPy's parser raise anything from SyntaxError to RecursionError.
        raise ValueError(f"{path} is truncated or not a .npy file") from error
    if dtype.hasobject:
        raise ValueError(f"{path} holds Python objects instead of numbers")
    if any(axis < 0 for axis in shape) or length < dtype.itemsize * _product(shape):
        raise ValueError(f"{path} is truncated or not a .npy file")
    return dtype, shape


def load_npy(path: Path) -> np.ndarray:
    """Returns the array of a .npy file.

    Raises:
      ValueError: in one line, for a file that `npy_form` refuses.
    """
    npy_form(path)
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not a .npy file") from error


def png_form(path: Path) -> PngForm:
    """Returns what the header of a PNG states.

    Raises:
      ValueError: in one line, for a file that is missing, unreadable or not a PNG.
    """
    try:
        with path.open("rb") as file:
            header = file.read(33)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(header) < 33 or header[:16] != b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
        raise ValueError(f"{path} can't be read as a PNG: it is damaged or of another format")
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    return PngForm(f"{bits}-bit {_COLOURS.get(colour, 'of unknown colour')}", (height, width))


def load_png(path: Path, *, mode: str | None = None) -> np.ndarray:
    """Returns the pixels of a PNG after its checksums are verified.

    Args:
      path: its file.
      mode: of Pillow, such as "RGB", to convert to; None for the numbers in the file.

    Raises:
      ValueError: in one line, for a file that is missing, unreadable, damaged or not a PNG.
    """
    try:
        # Decoding alone overlooks most flipped bytes.
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
        with Image.open(path, formats=["PNG"]) as image:
            return np.array(image if mode is None else image.convert(mode))
    except OSError as error:
        if error.errno is not None:
            raise _unreadable(path, error) from error
        raise _damaged_png(path) from error
    except (
        ValueError,
        SyntaxError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise _damaged_png(path) from error


def _product(shape: tuple[int, ...]) -> int:
    # Python's integers, since those of NumPy may overflow.
    product = 1
    for axis in shape:
        product *= axis
    return product


def _unreadable(path: Path, error: OSError) -> ValueError:
    if isinstance(error, FileNotFoundError):
        return ValueError(f"{path} is missing")
    return ValueError(f"{path} can't be read ({error.strerror})")


def _damaged_png(path: Path) -> ValueError:
    return ValueError(f"{path} can't be read as a PNG: it is damaged or of another format")
