"""Predictions and labels of the tasks, with pixels that have no label."""

import jax.numpy as jnp
import numpy as np

CLASSES = 5
SHAPE = (6, 7, 9)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def segmentation_case(rng):
    """Classes 0-3 occur in the labels, 0-2 and 4 in the predictions."""
    labels = rng.integers(-1, 4, SHAPE)
    predicted = rng.choice([0, 1, 2, 4], SHAPE)
    # The prediction is right often enough to give every metric something to measure.
    predicted = np.where(
        (rng.random(SHAPE) < 0.5) & (labels >= 0) & (labels < 3), labels, predicted
    )
    log_p = np.log(np.where(np.arange(CLASSES) == predicted[..., None], 0.6, 0.1))
    return predicted, jnp.float32(log_p), labels


def depth_case(rng):
    target = rng.uniform(0.5, 9.0, SHAPE)
    depth = target * np.exp(0.4 * rng.normal(size=SHAPE))
    target[rng.random(SHAPE) < 0.2] = 0.0
    return jnp.float32(depth), jnp.float32(target)


def normals_case(rng):
    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    target = unit(rng.normal(size=(*SHAPE, 3)))
    normals = unit(target + 0.3 * rng.normal(size=(*SHAPE, 3)))
    target[rng.random(SHAPE) < 0.2] = 0.0
    return jnp.float32(normals), jnp.float32(target)
