"""The rooms: pictures and labels that agree with each other, the same ones every time."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets.rooms import layout, raycast
from datasets.rooms import primitives as prim
from datasets.rooms.dice import Dice
from datasets.rooms.render import render_batch
from datasets.rooms.rooms_dataset_builder import BATCH, FIRST_TEST_INDEX, Builder, config

# Of the size of the rooms of tests/command_line.py, so that they are compiled once.
HEIGHT, WIDTH, SEED = 40, 56, 3


def view(*indices):
    """Returns the views of these indices, at most BATCH of them."""
    padded = np.resize(np.array(indices, np.int32), BATCH)
    views = jax.device_get(render_batch(SEED, padded, height=HEIGHT, width=WIDTH))
    return {name: array[: len(indices)] for name, array in views.items()}


@pytest.fixture(scope="module")
def views():
    batches = [view(*range(start, start + BATCH)) for start in range(0, 4 * BATCH, BATCH)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def rays(intrinsics):
    """Returns the directions [H, W, 3] of the pixels' centres with z = 1."""
    fx, fy, cx, cy = np.float64(intrinsics)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones((HEIGHT, WIDTH))], axis=-1)


def points(views, n):
    return rays(views["intrinsics"][n]) * np.float64(views["depth"][n])[..., None]


def test_shapes_dtypes_and_ranges(views):
    count = len(views["image"])
    assert {name: (array.dtype.name, array.shape[1:]) for name, array in views.items()} == {
        "image": ("uint8", (HEIGHT, WIDTH, 3)),
        "image_right": ("uint8", (HEIGHT, WIDTH, 3)),
        "segmentation": ("int8", (HEIGHT, WIDTH)),
        "depth": ("float32", (HEIGHT, WIDTH)),
        "normals": ("float32", (HEIGHT, WIDTH, 3)),
        "intrinsics": ("float32", (4,)),
        "baseline": ("float32", ()),
    }
    assert count == 32
    assert views["depth"].min() > 0.15 and views["depth"].max() < 10
    assert np.all(views["intrinsics"][:, 2:] == [(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    assert np.all((views["baseline"] > 0.05) & (views["baseline"] < 0.13))
    means = views["image"].mean(axis=(1, 2, 3))
    assert np.all((means > 60) & (means < 200)), "a picture is far too dark or bright"
    assert np.all(views["image"].std(axis=(1, 2, 3)) > 8), "a picture shows nothing"


def test_a_view_depends_on_its_index_alone(views):
    again = view(21, 6)
    for name, array in views.items():
        np.testing.assert_array_equal(again[name], array[[21, 6]], err_msg=name)
    assert len({image.tobytes() for image in views["image"]}) == len(views["image"])


def test_another_seed_makes_other_rooms(views):
    indices = np.arange(BATCH, dtype=np.int32)
    other = render_batch(SEED + 1, indices, height=HEIGHT, width=WIDTH)
    for n in range(BATCH):
        assert np.abs(other["depth"][n] - views["depth"][n]).max() > 0.1


@pytest.mark.slow  # It compiles the renderer again.
@pytest.mark.parametrize(("textures", "light"), [(False, True), (True, False), (False, False)])
def test_without_textures_and_light_a_wall_has_one_colour(views, textures, light):
    look = {"height": HEIGHT, "width": WIDTH, "textures": textures, "light": light}
    found = jax.device_get(render_batch(SEED, np.arange(BATCH, dtype=np.int32), **look))
    for name in found.keys() - {"image", "image_right"}:
        np.testing.assert_array_equal(found[name], views[name][:BATCH], err_msg=name)
    # 60 % of a normal distribution lie in 1.68 standard deviations, and those of the sensor's noise
    # are at most 1.4 * 0.018 of 255 levels. The median, since doors count as walls.
    noise = 1.68 * 1.4 * 0.018 * 255
    spread = np.median(wall_spreads(found))
    assert (spread < noise) == (not textures and not light)
    assert spread < np.median(wall_spreads(views))


def wall_spreads(views):
    """Returns how far the levels of the walls reach, from the 20th to the 80th percentile.

    Only pixels are counted whose neighbours have the same label and the same normal.
    """
    spreads = []
    for n in range(BATCH):
        labels, normals = views["segmentation"][n], views["normals"][n]
        inside = labels == prim.WALL
        for axis in (0, 1):
            for shift in (1, -1):
                inside &= np.roll(labels, shift, axis) == prim.WALL
                inside &= np.all(np.roll(normals, shift, axis) == normals, axis=-1)
        levels = views["image"][n][inside]
        low, high = np.quantile(levels, (0.2, 0.8), axis=0)
        spreads.append(np.max(high - low))
    return spreads


def test_every_class_occurs(views):
    share = np.bincount(views["segmentation"].reshape(-1), minlength=13) / views["depth"].size
    assert share.shape == (13,)
    assert np.all(share > 0.001), dict(zip(prim.CLASS_NAMES, share, strict=True))
    assert np.argmax(share) == prim.WALL and share[prim.WALL] < 0.55


def test_normals_are_unit_and_face_the_camera(views):
    np.testing.assert_allclose(np.linalg.norm(views["normals"], axis=-1), 1, atol=1e-5)
    for n in range(len(views["depth"])):
        assert np.all(np.sum(views["normals"][n] * rays(views["intrinsics"][n]), axis=-1) < 0)


def test_normals_are_those_of_the_depth(views):
    """Compares with finite differences of the back-projected depth, on planes without edges."""
    checked = total = 0
    for n in range(len(views["depth"])):
        point, normal = points(views, n), np.float64(views["normals"][n])
        label = views["segmentation"][n]
        right, down = point[:-1, 1:] - point[:-1, :-1], point[1:, :-1] - point[:-1, :-1]
        same = np.ones(right.shape[:2], bool)
        for rows, columns in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            same &= np.abs(normal[rows, columns] - normal[:-1, :-1]).max(axis=-1) < 1e-4
            same &= label[rows, columns] == label[:-1, :-1]
        crossed = np.cross(down, right)
        crossed /= np.linalg.norm(crossed, axis=-1, keepdims=True)
        cosine = np.sum(crossed * normal[:-1, :-1], axis=-1)[same]
        checked += np.sum(cosine > np.cos(np.radians(0.5)))
        total += cosine.size
    # What remains are steps between parallel surfaces of one class.
    assert total > 0.5 * views["depth"].size
    assert checked > 0.95 * total


def test_floor_is_one_plane_at_eye_height(views):
    seen = 0
    for n in range(len(views["depth"])):
        floor = views["segmentation"][n] == prim.FLOOR
        if floor.sum() < 30:
            continue
        up = np.median(views["normals"][n][floor], axis=0)
        height = -points(views, n)[floor] @ np.float64(up)
        assert height.max() - height.min() < 0.02  # a rug is 12 mm thick
        assert 0.85 < height.mean() < 1.85
        seen += 1
    assert seen > 20


def test_the_right_view_is_shifted_by_the_disparity(views):
    """Pixels of the left view are found in the right one at x - f B / Z, and not elsewhere."""
    columns = np.arange(WIDTH)

    def difference(n, factor):
        fx, baseline = views["intrinsics"][n][0], views["baseline"][n]
        target = columns - factor * fx * baseline / views["depth"][n]
        inside = (target >= 0) & (target <= WIDTH - 1)
        left = np.clip(np.floor(target), 0, WIDTH - 2).astype(int)
        part = (target - left)[..., None]
        right_image = np.float64(views["image_right"][n])
        rows = np.arange(HEIGHT)[:, None]
        warped = right_image[rows, left] * (1 - part) + right_image[rows, left + 1] * part
        return np.abs(warped - views["image"][n])[inside].mean()

    errors = np.array([[difference(n, f) for f in (1, 0, -1)] for n in range(len(views["depth"]))])
    right, none, wrong = errors.mean(axis=0)
    assert right < 0.75 * none and right < 0.6 * wrong
    assert np.mean(errors[:, 0] < errors[:, 1]) > 0.9


def test_things_stand_in_the_room_and_apart():
    def furnished(key):
        dice = Dice(jax.random.uniform(key, (9000,), jnp.float32))
        room = layout.room_size(dice)
        return room, layout.furnish(dice, room)

    rooms, placed = jax.jit(jax.vmap(furnished))(jax.random.split(jax.random.key(0), 50))
    for room, low, high, active in zip(rooms, placed.low, placed.high, placed.active, strict=True):
        low, high = np.asarray(low)[active], np.asarray(high)[active]
        assert np.all(low > -1e-4) and np.all(high < np.asarray(room) + 1e-4)
        overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # [N, N, 3]
        np.fill_diagonal(overlap[..., 0], -1)
        assert np.all(overlap.min(axis=-1) < 0)
    assert 8 < np.mean(np.sum(placed.active, axis=1)) < len(layout.ITEMS)


@pytest.mark.parametrize("shape", [prim.BOX, prim.ELLIPSOID, prim.CYLINDER])
def test_rays_meet_a_solid_where_its_equation_says(shape):
    generator = np.random.default_rng(shape)
    centre, half, yaw = np.array([1.0, 4.0, 0.5]), np.array([0.3, 0.7, 0.4]), 0.6
    look = prim.material(0, jnp.zeros(3, jnp.float32))
    one = prim.solid(-half, half, look, prim.OBJECTS, shape=shape)
    solids = prim.unpack(prim.place(one, jnp.asarray(centre, jnp.float32), yaw))

    def only(kind):
        return prim.keep(solids, kind, 1, jnp.ones(1, jnp.float32))

    scene = SimpleNamespace(
        boxes=only(prim.BOX), ellipsoids=only(prim.ELLIPSOID), cylinders=only(prim.CYLINDER)
    )
    directions = centre + generator.normal(size=(400, 3)) * 0.5
    at, number = raycast.nearest(scene, (0.0, 0.0, 0.0), tuple(np.float32(directions).T))
    at, hit = np.float64(at), np.asarray(number) >= 0

    def outside(t):
        """Returns a number that is positive outside the solid and zero on its surface."""
        x, y, z = (t[:, None] * directions - centre).T
        local = np.stack([np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x, z])
        a, b, c = local / half[:, None]
        round_ = np.hypot(a, b)
        cube = np.max(np.abs([a, b, c]), axis=0)
        size = {
            prim.BOX: cube,
            prim.ELLIPSOID: np.hypot(round_, c),
            prim.CYLINDER: np.maximum(round_, np.abs(c)),
        }
        return size[shape] - 1

    march = np.array([outside(np.full(400, t)) for t in np.linspace(0, 3, 600)])
    assert 50 < hit.sum() < 350
    assert np.all(march[:, ~hit] > -0.03)
    assert np.all(march[:, hit].min(axis=0) < 1e-2)
    np.testing.assert_allclose(outside(at)[hit], 0, atol=1e-4)
    assert np.all(outside(at * 0.99)[hit] > 0)


def test_dice_run_out_loudly():
    dice = Dice(jnp.zeros(3, jnp.float32))
    dice.take(2)
    with pytest.raises(ValueError, match="dice with 3 numbers were asked for 4"):
        dice.take(2)


def test_prepares_and_reads_without_tensorflow(views, tmp_path):
    choice = config(HEIGHT, WIDTH, train=3, test=2, seed=SEED)
    builder = Builder(config=choice, data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    fresh = tfds.builder_from_directory(builder.data_dir)
    assert list(fresh.info.metadata["class_names"]) == list(prim.CLASS_NAMES)
    # The training set begins with the first views.
    for split, count, expected in (
        ("train", 3, views),
        ("test", 2, view(FIRST_TEST_INDEX, FIRST_TEST_INDEX + 1)),
    ):
        source = fresh.as_data_source(split=split)
        assert len(source) == count
        for n in range(count):
            for name, array in expected.items():
                stored = np.asarray(source[n][name])
                assert stored.shape == array[n].shape
                tolerance = 1e-3 if name in ("depth", "normals") else 1e-6
                np.testing.assert_allclose(
                    np.float64(stored), np.float64(array[n]), rtol=tolerance, atol=tolerance
                )
    assert "tensorflow" not in sys.modules


def test_the_name_tells_the_choice():
    assert config().name == "96x128"
    assert config() is Builder.BUILDER_CONFIGS[0]
    assert config(240, 320, 5000, 500, 1).name == "240x320-5000+500-seed1"
    assert config(textures=False, light=False).name == "96x128-plain-unlit"


@pytest.mark.parametrize(
    "choice",
    [
        {"height": 0},
        {"width": 4096},
        {"height": 96.0},
        {"train": 0},
        {"test": -1},
        {"seed": -1},
    ],
)
def test_a_bad_choice_is_refused_by_name(choice):
    (name,) = choice
    with pytest.raises(ValueError, match=f"rooms: {name} must be a whole number in"):
        config(**choice)
