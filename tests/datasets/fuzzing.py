"""Files that are damaged in some way, and what a reader must do with them."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from datasets import checking

# The same examples each time, as many as a second or two allows.
BOUNDED = settings(max_examples=50, deadline=None, derandomize=True, database=None)

DTYPES = (
    "u1",
    "i1",
    "<u2",
    ">i2",
    "<i4",
    "<i8",
    "<u8",
    "<f2",
    "<f4",
    ">f4",
    "<f8",
    "<c8",
    "?",
    "<U2",
)
VALUES = (
    0,
    1,
    -1,
    0.3,
    3.6,
    12,
    13,
    255,
    2431.0,
    65535.0,
    1e-9,
    1e9,
    -1e9,
    np.nan,
    np.inf,
    -np.inf,
)


@st.composite
def damage(draw):
    """Draws a function that damages the bytes of a file."""
    how = draw(st.sampled_from(["random", "cut", "flipped", "prefixed", "empty"]))
    if how == "random":
        content = draw(st.binary(max_size=300))
        return lambda _: content
    if how == "prefixed":
        content, count = draw(st.binary(max_size=300)), draw(st.integers(1, 128))
        return lambda right: right[:count] + content
    part = draw(st.floats(0, 0.999))
    if how == "cut":
        return lambda right: right[: int(part * len(right))]
    if how == "empty":
        return lambda _: b""
    mask = draw(st.integers(1, 255))

    def flip(right):
        wrong = bytearray(right)
        wrong[int(part * len(wrong))] ^= mask
        return bytes(wrong)

    return flip


@st.composite
def arrays(draw, height, width):
    """Draws arrays of any type, of shapes that people confuse, with one or two extreme values."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(
        st.sampled_from(
            [
                (height, width),
                (height, width, 1),
                (height, width, 3),
                (height, width, 4),
                (3, height, width),
                (width, height),
                (2 * height, 2 * width),
                (0, width),
                (height,),
                (),
            ]
        )
    )
    first, second = draw(st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)))
    array = np.full(shape, first, np.float64)
    array.reshape(-1)[::7] = second
    with np.errstate(all="ignore"):
        array = array.astype(dtype)
    return np.asfortranarray(array) if draw(st.booleans()) else array


def good(readings):
    """Returns the items of readings; raises ValueError if one has a problem."""
    return checking.checked({"": readings})[""]


def assert_right_or_refused(read, *, num_classes, names):
    """Reads examples: either all of them are valid, or an error names a file in one line.

    Args:
      read: gives an iterable of examples as they are stored.
      num_classes: of the segmentation.
      names: of the files, one of which the line must hold.
    """
    try:
        examples = list(read())
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        assert any(name in str(error) for name in names), str(error)
        return False
    for example in examples:
        assert_right(example, num_classes)
    return True


def assert_right(example, num_classes):
    """Checks the contract of a stored example."""
    assert example["image"].dtype == np.uint8 and example["image"].ndim == 3
    for name in {"depth", "inverse_depth"} & example.keys():
        depth = example[name].astype(np.float64)
        assert np.all(np.isfinite(depth)) and np.all(depth >= 0)
    assert np.all(np.isfinite(example["intrinsics"])) and np.all(example["intrinsics"][:2] > 0)
    if "segmentation" in example:
        assert np.all((example["segmentation"] >= -1) & (example["segmentation"] < num_classes))
    if "normals" in example:
        length = np.linalg.norm(example["normals"].astype(np.float64), axis=-1)
        assert np.all((length == 0) | (np.abs(length - 1) < 2e-3))
    if "baseline" in example:
        assert np.isfinite(example["baseline"]) and example["baseline"] > 0
