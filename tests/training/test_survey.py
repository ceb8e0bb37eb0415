"""A look at the gradients of the tasks over some steps."""

import jax
import numpy as np

from mtl_jax import data, parallel
from mtl_jax.data import Feed
from mtl_jax.training.survey import survey, watched_sum
from tests import tiny
from tests.training.steps import SPLIT, flat, make, separate_gradients


def test_a_skipped_step_has_no_gram_matrix_rather_than_that_of_the_step_before():
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    bad = {**batch, "depth": np.full_like(batch["depth"], np.inf)}
    state, steps, shards = make(watched_sum(), batch=batch)
    rows = [
        flat(gradient["trunk"])
        for _, gradient in separate_gradients(jax.device_get(state.variables), shards)
    ]
    broken = parallel.shard(bad, jax.local_devices()[:1])
    feed = Feed(lambda step: broken if step == 1 else shards, steps_per_epoch=3, batch_size=8)
    found = survey(state, steps, feed, count=3)
    np.testing.assert_allclose(found.grams[0], np.inner(rows, rows), rtol=1e-4, atol=1e-6)
    assert np.all(np.isnan(found.grams[1]))
    assert np.all(np.isfinite(found.grams[2]))
