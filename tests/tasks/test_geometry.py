"""The camera against float64 NumPy; normals against planes of known normal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import geometry

HEIGHT, WIDTH = 60, 80
INTRINSICS = np.array([65.0, 66.0, 40.7, 31.7])

fit = jax.jit(functools.partial(geometry.normals_from_depth, radii=(6, 3)))
fine = jax.jit(functools.partial(geometry.normals_from_depth, radii=(3,)))


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def numpy_rays(height=HEIGHT, width=WIDTH):
    fx, fy, cx, cy = INTRINSICS
    v, u = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], axis=-1)


def plane_depth(normal, distance, rays):
    """Depth of the plane normal . X = -distance, where the rays hit it in front of the camera."""
    normal = np.asarray(normal) / np.linalg.norm(normal)
    depth = -distance / (rays @ normal)
    return np.where((depth > 0) & (depth < 20), depth, 0.0), normal


def angles(normals, truth):
    normals = np.asarray(normals, np.float64)
    sine = np.linalg.norm(np.cross(normals, np.broadcast_to(truth, normals.shape)), axis=-1)
    return np.degrees(np.arctan2(sine, normals @ truth))


def run(depth):
    normals, valid = fit(jnp.asarray(depth, jnp.float32), jnp.asarray(INTRINSICS, jnp.float32))
    return np.asarray(normals), np.asarray(valid)


@pytest.mark.parametrize(
    "normal",
    [(0, 0, -1), (0, -1, -0.2), (0.1, 1, -0.4), (-1, 0, -0.5), (1, 0.2, -0.6), (0.5, -0.6, -0.6)],
)
def test_planes(normal):
    depth, normal = plane_depth(normal, 1.7, numpy_rays())
    normals, valid = run(depth)
    assert valid.mean() > 0.3
    assert np.array_equal(valid, depth > 0)
    assert angles(normals[valid], normal).max() < 0.1
    np.testing.assert_allclose(np.linalg.norm(normals[valid], axis=-1), 1, atol=1e-5)


def test_normals_face_the_camera_on_any_depth():
    depth = np.random.default_rng(1).uniform(0.5, 8, (HEIGHT, WIDTH))
    normals, valid = run(depth)
    assert valid.all()
    assert np.all(np.sum(normals * numpy_rays(), axis=-1) < 0)


def test_missing_depth():
    depth, normal = plane_depth((0.3, -0.5, -0.8), 2.0, numpy_rays())
    depth[10:25, 30:50] = 0
    depth[40, 40], depth[41, 41], depth[42, 42] = np.nan, np.inf, -1
    missing = ~(np.isfinite(depth) & (depth > 0))
    normals, valid = run(depth)
    assert np.array_equal(valid, ~missing)
    assert np.all(normals[missing] == 0)
    assert angles(normals[valid], normal).max() < 0.1


def test_no_normals_without_a_surface():
    depth = np.zeros((HEIGHT, WIDTH))
    assert not run(depth)[1].any()
    depth[30, :] = 2.0  # a line of pixels does not determine a plane
    normals, valid = run(depth)
    assert not valid.any()
    assert np.all(normals == 0)


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_both_sides_of_a_depth_edge(noise):
    near, near_normal = plane_depth((0.4, -0.2, -0.9), 1.2, numpy_rays())
    far, far_normal = plane_depth((-0.5, 0.1, -0.8), 2.5, numpy_rays())
    columns = np.arange(WIDTH)
    depth = np.where(columns < 40, near, far)
    depth *= 1 + noise * np.random.default_rng(2).standard_normal(depth.shape)
    normals, valid = run(depth)
    assert valid.all()
    limit = 3 if noise == 0 else 6
    assert np.percentile(angles(normals[:, 30:38], near_normal), 99) < limit
    assert np.percentile(angles(normals[:, 43:50], far_normal), 99) < limit


def test_both_sides_of_a_corner():
    left, left_normal = plane_depth((0.7, 0, -0.7), 2.0, numpy_rays())
    right, right_normal = plane_depth((-0.7, 0, -0.7), 2.0, numpy_rays())
    left, right = (np.where(depth > 0, depth, np.inf) for depth in (left, right))
    depth = np.minimum(left, right)  # two walls that meet, seen from inside the room
    normals, valid = run(depth)
    fold = np.argmax(left[30] > right[30])
    assert 20 < fold < 60
    assert valid.all()
    assert angles(normals[:, : fold - 3], left_normal).max() < 3
    assert angles(normals[:, fold + 3 :], right_normal).max() < 3


def test_gradient_matches_finite_differences(float64):
    generator = np.random.default_rng(3)
    rays = numpy_rays(24, 32)
    depth, _ = plane_depth((0.2, -0.3, -0.9), 2.0, rays)
    depth += 0.01 * np.sin(np.arange(32) / 3) + 0.02 * (np.arange(24)[:, None] / 24) ** 2
    depth[4:7, 5:9] = 0
    target = generator.standard_normal((24, 32, 3))
    intrinsics = jnp.asarray(INTRINSICS)

    @jax.jit
    def loss(depth):
        normals, _ = geometry.normals_from_depth(depth, intrinsics, radii=(2,))
        return jnp.sum(normals * target)

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(depth)))
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[4:7, 5:9] == 0)
    step = 1e-8  # small enough that no pixel changes its window
    for _ in range(4):
        direction = generator.standard_normal(depth.shape) * (depth > 0)
        difference = (loss(depth + step * direction) - loss(depth - step * direction)) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-5)


def test_gradient_is_finite_where_depth_is_missing():
    @jax.jit
    def gradient(depth):
        return jax.grad(lambda d: jnp.sum(fine(d, jnp.asarray(INTRINSICS, jnp.float32))[0]))(depth)

    for fill in (0.0, np.nan, np.inf, 3.0):
        depth = np.full((HEIGHT, WIDTH), fill, np.float32)
        depth[:8, :8] = 1.0
        assert np.all(np.isfinite(gradient(depth)))


def test_vmap_equals_one_by_one():
    depths = np.stack(
        [plane_depth(n, 2.0, numpy_rays())[0] for n in ((0, 0, -1), (0.5, 0, -1), (0, -1, -0.2))]
    )
    intrinsics = np.stack([INTRINSICS, INTRINSICS * 1.1, INTRINSICS * 0.9])
    batch = jnp.asarray(depths, jnp.float32), jnp.asarray(intrinsics, jnp.float32)
    normals, valid = jax.jit(jax.vmap(fine))(*batch)
    for i in range(3):
        alone = fine(batch[0][i], batch[1][i])
        np.testing.assert_array_equal(valid[i], alone[1])
        np.testing.assert_allclose(normals[i], alone[0], atol=1e-5)


def test_mirroring_the_depth_mirrors_the_normals():
    generator = np.random.default_rng(4)
    coarse = generator.uniform(1, 4, (HEIGHT // 20, WIDTH // 20))
    depth = np.kron(coarse, np.ones((20, 20))) + 0.2 * numpy_rays()[..., 0]
    mirrored = INTRINSICS.copy()
    mirrored[2] = WIDTH - 1 - mirrored[2]
    straight, _ = run(depth)
    flipped, _ = fit(jnp.asarray(depth[:, ::-1], jnp.float32), jnp.asarray(mirrored, jnp.float32))
    flipped = np.asarray(flipped)[:, ::-1] * np.array([-1, 1, 1])
    # Ties between windows may fall the other way at a few pixels.
    assert np.mean(np.abs(straight - flipped).max(axis=-1) < 1e-3) > 0.97


@pytest.mark.parametrize("radii", [(), (0,), (4, -1), (31,)])
def test_radii_that_do_not_fit(radii):
    with pytest.raises(ValueError, match="radii"):
        geometry.normals_from_depth(
            jnp.ones((HEIGHT, WIDTH)), jnp.asarray(INTRINSICS, jnp.float32), radii=radii
        )
