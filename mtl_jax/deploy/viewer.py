"""A photo next to its predictions as a piece of HTML, which holds its pictures itself."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mtl_jax.deploy import view
from mtl_jax.deploy.photos import Photo
from mtl_jax.report import strips
from mtl_jax.tasks import Classes, Scale, Task

STYLE = Path(__file__).with_suffix(".css")
SCRIPT = Path(__file__).with_suffix(".js")
# Longest side in pixels of a picture on the page, which may be enlarged on a fine screen, and side
# of a key.
LONGEST_SIDE, KEY = 1024, 96
# Pictures wider than this, relative to their height, get a row of their own.
WIDE = 2.2
HELP = (
    "Click on a picture to read what is predicted there. Drag on it to move the border between "
    "photo and prediction."
)


class Shown(NamedTuple):
    """What is kept of a photo that is on the page.

    Attributes:
      size: height and width of the photo.
      results: task name -> prediction [h, w, ...] at the size on the page.
    """

    size: tuple[int, int]
    results: dict[str, np.ndarray]


def shrink(photo: Photo, results: view.Results) -> Shown:
    """Returns the predictions [H, W, ...] of a photo at the size on the page, not averaged."""
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return Shown((height, width), {name: view.pick(x, size) for name, x in results.items()})


def panels(photo: Photo, shown: Shown, tasks: Sequence[Task], class_names: Sequence[str]) -> str:
    """Returns the HTML of a photo under its predictions, with a slider and the keys to them."""
    height, width = next(iter(shown.results.values())).shape[:2]
    picture = address(view.shrink(photo.pixels, (height, width)), "webp", quality=90)
    caption = [photo.path.name, f"{shown.size[1]} × {shown.size[0]} pixels", *photo.notes]
    figures = [panel(task, shown.results[task.name], class_names) for task in tasks]
    wide = " wide" if width > WIDE * height else ""
    return (
        f'<div class="viewer{wide}" style="--photo: url({picture}); --ratio: {width / height:.4f}">'
        '<label class="wipe"><span>Photo</span><input type="range" aria-label="border between '
        'photo and predictions"><span>Prediction</span></label>'
        f'<div class="panels">{"".join(figures)}</div>'
        f'<p class="caption">{html.escape(" · ".join(caption))} <output></output><br>{HELP}</p>'
        "</div>"
    )


def panel(task: Task, prediction: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the HTML of one prediction [h, w, ...]."""
    painted = address(view.paint(task, prediction, class_names), "webp", lossless=True)
    noun, unit = html.escape(task.picture.noun.capitalize()), html.escape(task.unit)
    return (
        f'<figure><figcaption><span>{noun}</span><output title="{unit}"></output></figcaption>'
        f'<div class="stage"><img src="{painted}" alt="{noun}" draggable="false"><i></i></div>'
        f'<div class="key">{key(task, prediction, class_names)}</div></figure>'
    )


def key(task: Task, prediction: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the HTML that says what the colours of a prediction mean."""
    picture = task.picture
    if isinstance(picture, Classes):
        names = view.names_of(task, class_names)
        found, counts = np.unique(prediction[prediction >= 0], return_counts=True)
        often = found[np.argsort(-counts, kind="stable")]
        colours = picture.colours(len(names))
        return "".join(
            f'<span><b style="background: rgb{tuple(colours[i].tolist())}"></b>'
            f"{html.escape(names[i])}</span>"
            for i in often
        )
    if isinstance(picture, Scale):
        low, high = picture.limits(np.zeros(0), prediction)
        ramp = strips.paint_scale(np.linspace(low, high, 256)[None], (low, high), picture.colormap)
        return (
            f'<img class="ramp" src="{address(ramp, "png")}" alt=""><span>{low:.2f}</span>'
            f"<span>{html.escape(picture.label)}</span><span>{high:.2f}</span>"
        )
    text = html.escape(picture.key_text).replace("\n", "<br>")
    return (
        f'<img src="{address(picture.key(KEY), "png")}" alt=""><span>{text}</span>'
        f"<small>Numbers: {html.escape(task.unit)}</small>"
    )


def words(
    shown: Shown, place: tuple[float, float], tasks: Sequence[Task], class_names: Sequence[str]
) -> list[str]:
    """Returns what is predicted at a place of the photo: a text for each `output` of the HTML.

    Args:
      shown: the photo on the page.
      place: distance from its left and upper end, from 0 to 1.
      tasks: tasks on the page.
      class_names: names of the classes of the data set.
    """
    found = []
    for task in tasks:
        prediction = shown.results[task.name]
        value = prediction[pixel(place, prediction.shape)]
        found.append(task.picture.words(value, view.names_of(task, class_names)))
    row, column = pixel(place, shown.size)
    return [*found, f"· column {column}, row {row}"]


def pixel(place: tuple[float, float], size: Sequence[int]) -> tuple[int, int]:
    """Returns row and column of the pixel at a place; height and width are the first of a size."""
    across, down = (min(1.0, max(0.0, x)) for x in place)
    return min(int(down * size[0]), size[0] - 1), min(int(across * size[1]), size[1] - 1)


def message(text: str) -> str:
    """Returns a sentence as HTML."""
    return f'<p class="message">{html.escape(text)}</p>'


def address(pixels: np.ndarray, form: str, **options: Any) -> str:
    """Returns a picture uint8[h, w, 3] as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
