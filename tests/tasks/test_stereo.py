"""Stereo against per-pixel loops in NumPy, finite differences, and the exact disparity of rooms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datasets.rooms import render
from mtl_jax import data, tasks
from mtl_jax.data import augmentation
from mtl_jax.tasks import INTRINSICS, stereo

ENTRIES = data.entries_of((*tasks.TASKS.values(), *tasks.select(["depth"], depth_loss="stereo")))

HEIGHT, WIDTH = 12, 20

warp = jax.jit(stereo.warp)
occluded = jax.jit(stereo.occluded)
photometric = jax.jit(stereo.photometric_loss)


# A view of the prepared rooms. Rendering it takes longer than all else here.
with np.load(Path(__file__).with_name("room.npz")) as arrays:
    ROOM = dict(arrays)


@pytest.fixture(scope="module")
def room():
    """A stereo pair as the model sees it, a batch of one."""
    batch = {name: jnp.asarray(ROOM[name])[None] for name in ("intrinsics", "baseline")}
    for name in ("image", "image_right"):
        batch[name] = jnp.float32(ROOM[name])[None] / 255.0
    return {**batch, "depth": jnp.float32(ROOM["depth"])[None]}


@pytest.mark.slow
def test_the_room_is_the_fourth_of_the_default_set():
    views = jax.device_get(render.render_batch(0, np.array([3], np.int32), height=96, width=128))
    for name, stored in ROOM.items():
        # Rounding may give a pixel at an edge to another surface.
        level = 1 if name.startswith("image") else 0
        assert np.isclose(views[name][0], stored, rtol=1e-3, atol=level).mean() > 0.999


def texture(seed=0, width=WIDTH):
    return np.random.default_rng(seed).random((HEIGHT, width, 3))


def numpy_warp(right, shift):
    rebuilt, seen = np.zeros_like(right), np.zeros(shift.shape, bool)
    width = right.shape[1]
    for v, u in np.ndindex(shift.shape):
        x = u - shift[v, u]
        seen[v, u] = 0 <= x <= width - 1
        rebuilt[v, u] = [np.interp(x, np.arange(width), right[v, :, c]) for c in range(3)]
    return rebuilt, seen


@pytest.mark.parametrize("sign", [1, -1])
def test_warp(sign):
    shift = sign * np.random.default_rng(1).uniform(0, 6, (HEIGHT, WIDTH))
    rebuilt, seen = warp(jnp.float32(texture()), jnp.float32(shift))
    expected, inside = numpy_warp(texture(), shift)
    np.testing.assert_allclose(rebuilt, expected, atol=1e-5)
    np.testing.assert_array_equal(seen, inside)


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", [stereo.squared_loss, stereo.photometric_loss])
def test_gradients_by_finite_differences(loss):
    smooth = np.cumsum(texture(2), axis=1)[:, :WIDTH] / WIDTH
    rng = np.random.default_rng(3)
    batch = {
        "image": jnp.float64(smooth)[None],
        "image_right": jnp.float64(np.roll(smooth, -2, axis=1))[None],
        "intrinsics": jnp.array([[10.0, 10.0, 9.5, 5.5]]),
        "baseline": jnp.array([0.5]),
    }
    depth = 5.0 / rng.uniform(1.2, 1.8, (1, HEIGHT, WIDTH))
    direction = rng.normal(size=depth.shape)

    @jax.jit
    def mean(depth):
        total, pixels = loss(depth, batch)
        return total / pixels.astype(total.dtype)

    step = 1e-6
    moved = [float(mean(jnp.asarray(depth + s * step * direction))) for s in (1, -1)]
    slope = np.sum(np.asarray(jax.grad(mean)(jnp.asarray(depth))) * direction)
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-4)


def test_ssim():
    first, second = texture(4), np.clip(texture(4) + 0.2 * texture(5), 0, 1)
    got = stereo.dissimilarity(jnp.float32(first)[None], jnp.float32(second)[None])[0]
    expected = np.zeros((HEIGHT - 2, WIDTH - 2, 3))
    for v, u, c in np.ndindex(expected.shape):
        a, b = first[v : v + 3, u : u + 3, c], second[v : v + 3, u : u + 3, c]
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        ssim = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
        ssim /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
        expected[v, u, c] = 0.85 * np.clip((1 - ssim) / 2, 0, 1) + 0.15 * abs(a[1, 1] - b[1, 1])
    np.testing.assert_allclose(got, expected.mean(-1), atol=2e-5)


def numpy_roughness(shift, image, edges, order):
    relative, total = shift / shift.mean(), np.zeros(shift.shape)
    for v, u in np.ndindex(shift.shape):
        for dv, du in ((1, 0), (0, 1)):
            places = [(v + i * dv, u + i * du) for i in range(1 - order, 2)]
            if any(row in (-1, HEIGHT) or column in (-1, WIDTH) for row, column in places):
                continue
            difference = np.diff([relative[place] for place in places], n=order)[0]
            colours = np.array([image[place] for place in places])
            edge = np.abs(np.diff(colours, axis=0)).mean(-1).max()
            total[v, u] += abs(difference) * np.exp(-edges * edge)
    return total


@pytest.mark.parametrize("order", [1, 2])
def test_roughness(order):
    shift = np.random.default_rng(6).uniform(1, 6, (HEIGHT, WIDTH))
    got = stereo.roughness(
        jnp.float32(shift)[None], jnp.float32(texture(7))[None], edges=3.0, order=order
    )[0]
    np.testing.assert_allclose(got, numpy_roughness(shift, texture(7), 3.0, order), atol=1e-5)


def test_planes_cost_nothing_by_second_differences():
    """Depth is 1 / (a x + b y + c) on a plane, so that disparity is linear in the pixels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    plane = jnp.float32(2 + 0.03 * rows + 0.11 * columns)[None]
    image = jnp.zeros((1, HEIGHT, WIDTH, 3))
    assert jnp.max(stereo.roughness(plane, image, order=2)) < 1e-5
    assert jnp.min(stereo.roughness(plane, image, order=1)[:, :-1, :-1]) > 0.03


def test_the_smoothness_of_pixels_that_the_right_view_lacks(monkeypatch):
    """Without `fill` no gradient reaches them; with it, that of the smoothness does."""
    monkeypatch.setattr(stereo, "SCALES", 1)
    batch = {
        "image": jnp.float32(texture(1))[None],
        "image_right": jnp.float32(texture(2))[None],
        "intrinsics": jnp.array([[10.0, 10.0, 9.5, 5.5]]),
        "baseline": jnp.array([10.0]),  # disparities of more than the width
    }
    depth = jnp.float32(np.random.default_rng(3).uniform(1, 4, (1, HEIGHT, WIDTH)))

    def total(depth, fill):
        return stereo.photometric_loss(depth, batch, smoothness=0.5, fill=fill)[0]

    gradients = jax.jit(lambda depth: [jax.grad(total)(depth, fill) for fill in (False, True)])
    ignored, smoothed = map(np.asarray, gradients(depth))
    assert not np.any(ignored)
    assert np.all(smoothed[:, 1:-1, 1:-1] != 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_something_nearer_hides_is_occluded(sign):
    """A square at 6 pixels of disparity before a wall at 2: it hides 4 columns of the wall."""
    shift = np.full((HEIGHT, WIDTH), 2.0)
    shift[3:9, 8:13] = 6.0
    hidden = np.asarray(occluded(jnp.float32(sign * shift)))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    # Wall pixel u arrives at u - 2, where the square's pixels 8..12 - 6 = 2..6 arrive: u = 4..8.
    columns = slice(4, 8) if sign > 0 else slice(13, 17)
    expected[3:9, columns] = True
    assert np.all(hidden[expected])
    grown = np.zeros_like(expected)
    grown[3:9, columns.start - 1 : columns.stop + 1] = True
    assert not np.any(hidden & ~grown)


def test_the_true_disparity_of_a_room_rebuilds_it_best(room):
    total, pixels = photometric(room["depth"], room)
    true = float(total / pixels)
    shifts = np.linspace(1, 30, 30)
    focal_baseline = float(room["intrinsics"][0, 0] * room["baseline"][0])
    for shift in shifts:
        flat = jnp.full_like(room["depth"], focal_baseline / shift)
        total, pixels = photometric(flat, room)
        assert true < 0.6 * float(total / pixels)


def test_occluded_pixels_of_a_room_are_those_that_the_right_view_lacks(room):
    shift = stereo.disparity(room["depth"], room["intrinsics"], room["baseline"])[0]
    rebuilt, seen = warp(room["image_right"][0], shift)
    error = np.abs(np.asarray(rebuilt) - np.asarray(room["image"][0])).mean(-1)
    hidden = np.asarray(occluded(shift)) & np.asarray(seen)
    visible = ~hidden & np.asarray(seen)
    assert hidden.sum() > 20
    assert error[hidden].mean() > 4 * error[visible].mean()


@pytest.mark.parametrize("loss", [stereo.squared_loss, stereo.photometric_loss])
def test_hidden_pixels_and_unpaired_images_are_not_counted(room, loss):
    unpaired = {**room, "baseline": jnp.zeros(1)}
    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, pixels), gradient = both(room["depth"], unpaired)
    assert total == 0.0 and pixels == 0.0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("loss", [stereo.squared_loss, stereo.photometric_loss])
def test_a_mirrored_pair_has_the_same_loss(room, loss):
    view = {name: x[0] for name, x in room.items()}
    mirrored = {name: x[None] for name, x in augmentation.flip(view, ENTRIES).items()}
    assert float(mirrored["baseline"][0]) < 0
    loss = jax.jit(loss)
    one, other = loss(room["depth"], room), loss(mirrored["depth"], mirrored)
    np.testing.assert_allclose(one[0] / one[1], other[0] / other[1], rtol=1e-3)


def test_disparities_grow_with_the_scale_of_a_crop(room):
    view = {name: x[0] for name, x in room.items()}
    part = augmentation.scale_and_crop(view, ENTRIES, jnp.float32(1.5), jnp.zeros(2))
    before = stereo.disparity(room["depth"], room["intrinsics"], room["baseline"])[0]
    after = stereo.disparity(part["depth"][None], part["intrinsics"][None], part["baseline"][None])[
        0
    ]
    rows, columns = ((np.arange(n) + 0.5) / 1.5 - 0.5 for n in after.shape)
    expected = (
        1.5 * np.asarray(before)[np.ix_(np.rint(rows).astype(int), np.rint(columns).astype(int))]
    )
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    batch = {name: x[None] for name, x in part.items()}
    total, pixels = photometric(batch["depth"], batch)
    doubled = photometric(2.0 * batch["depth"], batch)
    assert total / pixels < 0.5 * doubled[0] / doubled[1]


def test_the_task_reads_no_depth_label():
    (task,) = tasks.select(["depth"], depth_loss="stereo")
    assert task.reads == (stereo.IMAGE_RIGHT, stereo.BASELINE, INTRINSICS)
    depth = task.activation(jnp.linspace(-30.0, 30.0, 61)[:, None], {})
    assert np.all(np.isfinite(depth))
    assert depth.min() > 0.29
    depth, normals = tasks.select(["depth", "normals"], depth_loss="stereo", normals_source="depth")
    assert normals.reads == (INTRINSICS,)
    (normals,) = tasks.select(["normals"], depth_loss="stereo", normals_source="depth")
    assert [entry.name for entry in normals.reads] == ["depth", "intrinsics"]
    with pytest.raises(ValueError, match="nearest=0.*must be a positive"):
        tasks.select(["depth"], depth_loss="stereo:nearest=0")


def test_depth_is_found_without_labels(room):
    """Gradient descent on the depth of one pair, from far off, ends near the truth."""
    (task,) = tasks.select(["depth"], depth_loss="stereo")
    raw = jnp.zeros((*room["depth"].shape, 1))
    blur = jnp.ones((15, 15, 1, 1)) / 225.0

    def depth_of(raw):
        smooth = jax.lax.conv_general_dilated(
            raw, blur, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return task.activation(smooth, room)

    def error(raw):
        ratio = depth_of(raw) / room["depth"]
        return float(jnp.median(jnp.abs(ratio - 1.0)))

    @jax.jit
    def step(raw):
        gradient = jax.grad(lambda raw: jnp.divide(*task.loss(depth_of(raw), room)))(raw)
        return raw - 0.3 * gradient / (jnp.max(jnp.abs(gradient)) + 1e-12)

    start = error(raw)
    for _ in range(150):
        raw = step(raw)
    assert error(raw) < 0.5 * start
