"""The bytes of figures, and the names of their files."""

import io
import re
import warnings

from matplotlib.figure import Figure
from PIL import Image

from mtl_jax.report.read import Run

# Files of the report, name -> content.
Contents = dict[str, str | bytes]
DPI = 160
# Most characters of a folder's name in the name of a picture: four bytes each still fit.
LONGEST_NAME = 50
# Most groups with pictures of their own on the page, so that it stays below 5 MB.
MOST_PICTURED = 4
# Quality of the WebP pictures on the page, and their pixels per CSS pixel.
QUALITY, DENSITY = 75, 1.5


def save(figure: Figure, name: str, contents: Contents) -> bytes:
    """Adds a figure as PNG to the files; returns the bytes."""
    png = to_png(figure)
    contents[name] = png
    return png


def to_png(figure: Figure) -> bytes:
    """Returns a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name with letters that are not in the font is drawn as boxes; the page has it as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def to_webp(png: bytes, width: int) -> bytes:
    """Returns a picture in the size of the page, in a fifth of the bytes.

    Args:
      png: the picture.
      width: on the page, in CSS pixels.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((round(DENSITY * width), picture.height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", quality=QUALITY)
    return buffer.getvalue()


def width_of(png: bytes) -> int:
    """Returns the width of a saved figure in CSS pixels, such that its text is easy to read."""
    return round(95 * Image.open(io.BytesIO(png)).width / DPI)


def file_name(run: Run, taken: set[str]) -> str:
    """Returns the folder's name in characters that any system accepts, numbered if taken."""
    stem = re.sub(r"[^\w.-]+", "_", run.path.resolve().name)[:LONGEST_NAME]
    return numbered(stem or "run", taken)


def numbered(stem: str, taken: set[str]) -> str:
    """Returns a name that is not taken yet, and takes it."""
    candidates = (f"{stem}-{number}" for number in range(2, len(taken) + 3))
    name = next(name for name in (stem, *candidates) if name not in taken)
    taken.add(name)
    return name


def class_names(run: Run) -> list[str]:
    """Returns the names of the classes of a run's data set that are known."""
    names = run.config.get("class_names")
    return [str(name) for name in names] if isinstance(names, list) else []
