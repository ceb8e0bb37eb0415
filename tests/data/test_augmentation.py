"""Augmentation against per-pixel loops and the geometry of a plane in front of the camera."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data
from mtl_jax.data import augmentation
from mtl_jax.tasks import IMAGE, Entry, images
from tests.fakes import TASKS

HEIGHT, WIDTH = 24, 36
INTRINSICS = np.array([30.0, 33.0, 16.3, 12.9])
NORMAL = np.array([0.36, 0.48, -0.8])
DISTANCE = -2.5  # NORMAL . X of the plane's points

ALL = tuple(TASKS.values())
ENTRIES = data.entries_of(ALL)

flip = jax.jit(functools.partial(augmentation.flip, entries=ENTRIES))
augment_jittered = jax.jit(functools.partial(data.augment, tasks=ALL, colour_jitter=0.9))
augment_plain = jax.jit(functools.partial(data.augment, tasks=ALL))


@jax.jit
def scale_and_crop(view, scale, offset):
    return augmentation.scale_and_crop(view, ENTRIES, scale, offset)


def rays(intrinsics, height=HEIGHT, width=WIDTH):
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    v, u = np.mgrid[:height, :width]
    return np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(v, float)], axis=-1)


def plane_view(seed=0):
    """A plane, with pixels of no depth, no normal and no class here and there."""
    rng = np.random.default_rng(seed)
    depth = DISTANCE / (rays(INTRINSICS) @ NORMAL)
    assert depth.min() > 0
    normals = np.broadcast_to(NORMAL, (HEIGHT, WIDTH, 3)).copy()
    depth[rng.random(depth.shape) < 0.1] = 0.0
    normals[rng.random(depth.shape) < 0.1] = 0.0
    return {
        "image": jnp.float32(rng.random((HEIGHT, WIDTH, 3))),
        "segmentation": jnp.int32(rng.integers(-1, 13, (HEIGHT, WIDTH))),
        "depth": jnp.float32(depth),
        "normals": jnp.float32(normals),
        "intrinsics": jnp.float32(INTRINSICS),
    }


def assert_same(one, other, atol=0.0):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_allclose(one[name], other[name], atol=atol, err_msg=name)


def fitted_normal(points):
    """Normal of the plane through points f64[n, 3] by least squares, facing the camera."""
    solution = np.linalg.lstsq(points, np.ones(len(points)), rcond=None)[0]
    return -solution / np.linalg.norm(solution)  # n . X = 1 has the camera behind it


def test_flip_twice_is_the_identity():
    view = plane_view()
    once = flip(view)
    assert not np.array_equal(once["image"], view["image"])
    assert_same(flip(once), view, atol=1e-5)


def test_flip_mirrors_the_scene():
    view = plane_view()
    flipped = flip(view)
    mirror = np.array([-1.0, 1.0, 1.0])
    points = rays(view["intrinsics"]) * view["depth"][..., None]
    mirrored = rays(flipped["intrinsics"]) * flipped["depth"][..., None]
    np.testing.assert_allclose(mirrored, points[:, ::-1] * mirror, atol=1e-5)
    known = np.asarray(flipped["depth"]) > 0
    np.testing.assert_allclose(mirrored[known] @ (NORMAL * mirror), DISTANCE, rtol=1e-5)
    present = np.any(flipped["normals"] != 0, axis=-1)
    found = np.asarray(flipped["normals"])[present]
    np.testing.assert_allclose(found - NORMAL * mirror, 0.0, atol=1e-6)
    np.testing.assert_array_equal(present, np.any(view["normals"] != 0, axis=-1)[:, ::-1])
    np.testing.assert_array_equal(flipped["segmentation"], view["segmentation"][:, ::-1])
    np.testing.assert_array_equal(flipped["image"], view["image"][:, ::-1])


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.7, 0.3)])
def test_scale_one_is_the_identity(offset):
    view = plane_view()
    assert_same(scale_and_crop(view, jnp.float32(1.0), jnp.float32(offset)), view, atol=1e-6)


@pytest.mark.parametrize(("scale", "offset"), [(1.2, (0.31, 0.83)), (1.5, (0.02, 0.93))])
def test_scale_and_crop_agrees_with_a_loop_over_pixels(scale, offset):
    view = plane_view()
    result = scale_and_crop(view, jnp.float32(scale), jnp.float32(offset))
    old = {name: np.asarray(x) for name, x in view.items()}
    top, left = (
        o * size * (1 - 1 / scale) for o, size in zip(offset, (HEIGHT, WIDTH), strict=True)
    )

    def clip(row, column):
        return min(max(row, 0), HEIGHT - 1), min(max(column, 0), WIDTH - 1)

    for i, j in np.ndindex(HEIGHT, WIDTH):
        row, column = top + (i + 0.5) / scale - 0.5, left + (j + 0.5) / scale - 0.5
        near = clip(round(row), round(column))
        assert result["segmentation"][i, j] == old["segmentation"][near]
        assert float(result["depth"][i, j]) == pytest.approx(old["depth"][near] / scale, rel=1e-6)
        np.testing.assert_array_equal(result["normals"][i, j], old["normals"][near])
        r, c = int(np.floor(row)), int(np.floor(column))
        expected = sum(
            (1 - abs(row - y)) * (1 - abs(column - x)) * old["image"][clip(y, x)]
            for y in (r, r + 1)
            for x in (c, c + 1)
        )
        np.testing.assert_allclose(result["image"][i, j], expected, atol=1e-5)


@pytest.mark.parametrize(("scale", "offset"), [(1.2, (0.31, 0.83)), (1.5, (0.9, 0.1))])
def test_intrinsics_follow_the_crop(scale, offset):
    # Colours that are the coordinates of their pixel: linear, so interpolating them is exact, and
    # each pixel of the crop shows its place in the old image.
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([columns, rows, np.ones_like(rows)], -1)
    view = plane_view() | {"image": jnp.float32(image)}
    result = scale_and_crop(view, jnp.float32(scale), jnp.float32(offset))
    u, v = np.moveaxis(np.asarray(result["image"], np.float64), -1, 0)[:2]
    fx, fy, cx, cy = INTRINSICS
    old = np.stack([(u - cx) / fx, (v - cy) / fy], -1)
    new = rays(result["intrinsics"])[..., :2]
    inside = np.s_[1:-1, 1:-1]  # at the border colours are clamped
    np.testing.assert_allclose(new[inside], old[inside], atol=1e-5)


@pytest.mark.parametrize(("scale", "offset"), [(1.2, (0.31, 0.83)), (1.5, (0.9, 0.1))])
def test_scale_and_crop_shrinks_the_scene(scale, offset):
    result = scale_and_crop(plane_view(), jnp.float32(scale), jnp.float32(offset))
    known = np.asarray(result["depth"]) > 0
    new_rays = rays(result["intrinsics"])
    points = (new_rays * result["depth"][..., None])[known]
    # Labels are those of the nearest old pixel, up to half of one away in each direction; over
    # that distance the plane's inverse depth, NORMAL . ray / DISTANCE, changes by no more than:
    half = 0.5 * (NORMAL[0] / INTRINSICS[0] + NORMAL[1] / INTRINSICS[1])
    slack = half / (np.abs(new_rays @ NORMAL).min() - half)
    off = points @ NORMAL / (DISTANCE / scale) - 1.0
    assert np.abs(off).max() < slack + 1e-5
    assert np.abs(off.mean()) < 0.1 * slack  # to either side alike
    present = np.any(result["normals"] != 0, axis=-1)
    assert 0 < present.sum() < present.size
    normals = np.asarray(result["normals"])[present]
    assert np.all(normals @ fitted_normal(points) > np.cos(np.radians(1.0)))


def test_an_entry_says_what_becomes_of_it():
    heat = Entry(
        "heat",
        decode=lambda stored: stored.astype(jnp.float32) / 255.0,
        flip=lambda mirrored: -mirrored,
        scale=lambda enlarged, factor: enlarged * factor,
        resample="linear",
    )
    task = TASKS["depth"]._replace(reads=(heat,), labels=(heat,))
    stored = {
        "image": np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8),
        "intrinsics": np.float32(INTRINSICS)[None],
    }
    stored["heat"] = stored["image"][..., 0]
    view = {name: x[0] for name, x in data.decode(stored, [task]).items()}
    entries = data.entries_of([task])
    flipped = augmentation.flip(view, entries)
    np.testing.assert_array_equal(flipped["heat"], -flipped["image"][..., 0])
    part = augmentation.scale_and_crop(view, entries, jnp.float32(1.2), jnp.float32([0.3, 0.8]))
    np.testing.assert_allclose(part["heat"], 1.2 * part["image"][..., 0], rtol=1e-6)


def batch_of_views(count):
    views = [plane_view(seed) for seed in range(count)]
    return jax.tree.map(lambda *x: jnp.stack(x), *views)


def test_augment_keeps_colours_labels_and_shapes_in_range():
    batch = batch_of_views(8)
    result = augment_jittered(jax.random.split(jax.random.key(0), 8), batch)
    assert jax.tree.map(jnp.shape, result) == jax.tree.map(jnp.shape, batch)
    assert 0.0 <= result["image"].min() < result["image"].max() <= 1.0
    lengths = np.linalg.norm(result["normals"], axis=-1)
    assert np.all(np.isclose(lengths, 1.0, atol=1e-5) | (lengths == 0.0))
    assert set(np.unique(result["segmentation"])) <= set(range(-1, 13))


def test_augment_depends_on_each_images_key_alone():
    batch, keys = batch_of_views(8), jax.random.split(jax.random.key(1), 8)
    result = augment_jittered(keys, batch)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    moved = augment_jittered(keys[order], jax.tree.map(lambda x: x[order], batch))
    assert_same(moved, jax.tree.map(lambda x: x[order], result), atol=1e-6)
    assert_same(augment_jittered(keys, batch), result)
    other = augment_jittered(jax.random.split(jax.random.key(2), 8), batch)
    assert not np.array_equal(other["image"], result["image"])


def test_augment_draws_every_scale_flip_and_place():
    number = 64
    ramp = jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32), (number, 4, 6))
    batch = {
        "image": jnp.zeros((number, 4, 6, 3)),
        "segmentation": ramp,
        "intrinsics": jnp.broadcast_to(jnp.float32([10.0, 10.0, 2.5, 1.5]), (number, 4)),
    }
    keys = jax.random.split(jax.random.key(3), number)
    result = augment_plain(keys, batch)
    scales = np.asarray(result["intrinsics"][:, 0]) / 10.0
    for scale in augmentation.CROP_SCALES:
        assert 10 < np.isclose(scales, scale).sum() < 35  # a third of 64
    flipped = result["segmentation"][:, 0, 0] > result["segmentation"][:, 0, -1]
    assert 20 < flipped.sum() < 44
    assert len(np.unique(result["intrinsics"][:, 3])) > 30


def test_with_a_crop_scale_of_one_images_are_flipped_or_left_alone():
    number = 16
    views = [plane_view(seed) for seed in range(number)]
    batch = {name: jnp.stack([view[name] for view in views]) for name in views[0]}
    flips = jax.jit(functools.partial(data.augment, tasks=ALL, crop_scales=[1.0]))
    result = flips(jax.random.split(jax.random.key(5), number), batch)
    found = []
    for i, view in enumerate(views):
        one = {name: np.asarray(x[i]) for name, x in result.items()}
        found.append(not np.array_equal(one["image"], view["image"]))
        assert_same(one, {k: np.asarray(x) for k, x in (flip(view) if found[-1] else view).items()})
    assert 3 < sum(found) < 13


def test_jitter_of_zero_changes_no_colour():
    image = plane_view()["image"]
    np.testing.assert_array_equal(augmentation.recolour(jax.random.key(0), image, 0.0), image)


def test_jitter_recolours_and_leaves_grey_grey():
    jitter = jax.jit(functools.partial(augmentation.recolour, colour_jitter=0.3))
    image = plane_view()["image"]
    grey = jnp.broadcast_to(image[..., :1], image.shape)
    keys = jax.random.split(jax.random.key(4), 3)
    recoloured = [np.asarray(jitter(key, grey)) for key in keys]
    for result in recoloured:
        np.testing.assert_allclose(
            result, np.broadcast_to(result[..., :1], result.shape), atol=1e-5
        )
    assert not np.allclose(recoloured[0], recoloured[1], atol=0.01)
    assert not np.allclose(jitter(keys[0], image), image, atol=0.01)


def test_the_depth_of_a_sensor_changes_as_labels_of_depth_do():
    view = plane_view()
    batch = {name: jnp.asarray(x)[None] for name, x in view.items()}
    batch["image"] = jnp.concatenate([batch["image"], batch["depth"][..., None] / 100], axis=-1)
    keys = jax.random.split(jax.random.key(0), 8)
    batch = jax.tree.map(lambda x: jnp.repeat(x, len(keys), axis=0), batch)
    result = augment_jittered(keys, batch)
    assert result.keys() == batch.keys()
    np.testing.assert_allclose(result["image"][..., 3], result["depth"] / 100, rtol=1e-5)
    plain = augment_jittered(keys, batch | {"image": batch["image"][..., :3]})
    np.testing.assert_array_equal(result["image"][..., :3], plain["image"])


def test_what_is_beyond_the_range_of_a_sensor_stays_beyond_it():
    metres = np.float32([[0.0, 1.0, 2.5], [4.0, 7.5, 10.0]])
    stored = images.with_depth(np.zeros((2, 3, 3), np.uint8), metres, 7.5)
    # A constant image per depth, so that a crop shows the same depth everywhere.
    pixels = np.broadcast_to(stored.reshape(6, 1, 1, 4), (6, 4, 6, 4))
    batch = {
        "image": IMAGE.decode(jnp.asarray(pixels)),
        "intrinsics": jnp.broadcast_to(jnp.float32([10.0, 10.0, 2.5, 1.5]), (6, 4)),
    }
    seen = set()
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), 6)
        result = augment_plain(keys, batch)
        scales = np.asarray(result["intrinsics"][:, 0]) / 10.0
        seen |= {round(float(scale), 3) for scale in scales}
        steps = np.rint(metres.ravel() * 255 / 7.5)
        expected = np.where(metres.ravel() < 7.5, steps / 255 / scales, 1.0)
        found = np.asarray(result["image"][..., 3])
        np.testing.assert_allclose(
            found, np.broadcast_to(expected[:, None, None], found.shape), rtol=1e-6
        )
    assert seen == {1.0, 1.2, 1.5}


def test_grey_images_vary_as_grey_ones_in_colour():
    key, grey = jax.random.key(0), jax.random.uniform(jax.random.key(1), (8, 8, 1))
    found = augmentation.recolour(key, grey, 0.5)
    expected = augmentation.recolour(key, jnp.repeat(grey, 3, axis=-1), 0.5)
    np.testing.assert_allclose(jnp.repeat(found, 3, axis=-1), expected, atol=1e-5)
