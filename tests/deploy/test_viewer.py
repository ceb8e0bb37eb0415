"""A photo and its predictions as HTML, and the words for a place in it."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_jax.deploy import viewer
from mtl_jax.deploy.photos import Photo
from mtl_jax.tasks import class_colours
from tests import fakes
from tests.deploy import stubs
from tests.fakes import TASKS

TASK_LIST = tuple(TASKS.values())


def photo(height: int, width: int, name: str = "a.png", notes: tuple[str, ...] = ()) -> Photo:
    return Photo(Path(name), np.array(stubs.colours(height, width)), None, notes)


def shown_html(one: Photo, class_names=fakes.CLASSES) -> str:
    shown = viewer.shrink(one, stubs.predict(one.pixels))
    return viewer.panels(one, shown, TASK_LIST, class_names)


def pictures(text: str) -> list[np.ndarray]:
    """Returns the pictures that HTML holds, in their order."""
    found = re.findall(r"data:image/\w+;base64,([\w+/=]+)", text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_predictions_are_painted_next_to_the_photo():
    one = photo(18, 24)
    first, classes, depth, _, normals, _ = pictures(shown_html(one))
    assert np.abs(first.astype(int) - one.pixels).mean() < 6
    expected = stubs.predict(one.pixels)
    np.testing.assert_array_equal(classes, class_colours(3)[expected["segmentation"]])
    np.testing.assert_array_equal(normals, TASKS["normals"].picture.paint(expected["normals"]))
    # The nearest pixel is yellow, the farthest one is dark.
    near, far = (
        np.unravel_index(pick(expected["depth"]), (18, 24)) for pick in (np.argmin, np.argmax)
    )
    assert depth[near].sum() > depth[far].sum()


def test_large_photos_are_shown_smaller_and_long_ones_in_rows_of_their_own():
    one = photo(300, 3000)
    text = shown_html(one)
    first, classes, *_ = pictures(text)
    assert first.shape == classes.shape == (102, 1024, 3)
    assert '<div class="viewer wide"' in text
    assert '<div class="viewer"' in shown_html(photo(20, 40))
    assert "3000 × 300 pixels" in text


def test_names_are_text_and_not_html():
    text = shown_html(photo(6, 8, "<b>.png", ("a & b",)), ("<i>", "<u>", "<s>"))
    assert "&lt;b&gt;.png · 8 × 6 pixels · a &amp; b" in text
    assert "<i>" not in text.replace("<i></i>", "")
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(text)
    assert not {"u", "s"} & set(tags)
    assert viewer.message("<b>") == '<p class="message">&lt;b&gt;</p>'


def test_the_legend_names_the_classes_that_occur_the_largest_first():
    one = photo(4, 4)
    one.pixels[...] = 200  # the last class
    one.pixels[0] = 10  # the first one
    legend = shown_html(one).partition('<div class="key">')[2].partition("</div>")[0]
    assert re.findall(r"</b>(\w+)<", legend) == ["wall", "bed"]
    red, green, blue = class_colours(3)[2]
    assert f"rgb({red}, {green}, {blue})" in legend


@pytest.mark.parametrize(
    ("place", "row", "column"), [((0.0, 0.0), 0, 0), ((1.0, 1.0), 17, 23), ((0.5, 0.99), 17, 12),
                                 ((-3.0, float("nan")), 0, 0)]
)  # fmt: skip
def test_words_for_a_place(place, row, column):
    one = photo(18, 24)
    expected = stubs.predict(one.pixels)
    shown = viewer.shrink(one, expected)
    found = viewer.words(shown, place, TASK_LIST, fakes.CLASSES)
    assert found[0] == fakes.CLASSES[expected["segmentation"][row, column]]
    assert found[1] == f"{expected['depth'][row, column]:.2f} m"
    assert found[-1] == f"· column {column}, row {row}"


def test_a_place_of_a_large_photo_is_that_of_its_own_pixels():
    one = photo(30, 3000)
    shown = viewer.shrink(one, stubs.predict(one.pixels))
    assert viewer.words(shown, (0.5, 0.5), TASK_LIST, fakes.CLASSES)[-1] == "· column 1500, row 15"
