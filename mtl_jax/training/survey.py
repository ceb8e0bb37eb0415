"""Records the tasks' losses and the Gram matrices of their gradients over some steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mtl_jax import data
from mtl_jax.data import Feed
from mtl_jax.runs import workdir
from mtl_jax.training.step import MAX_SKIPPED, Steps, TrainState
from mtl_jax.weighting import Weighting, from_gram_update
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree


class Survey(NamedTuple):
    """What the steps showed.

    Attributes:
      losses: f32[steps, K].
      grams: f32[steps, K, K], inner products of the gradients of the trunk: zeros for tasks that
        took no part, NaN in steps without finite gradients.
    """

    losses: np.ndarray
    grams: np.ndarray


def watched_sum() -> Weighting:
    """Returns the weighting of `survey`: the sum of the losses; it reports the Gram matrix."""

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        return jnp.ones_like(signals.losses), state, {"gram": signals.gram}

    return from_gram_update(update, plain_heads=True)


def survey(state: TrainState, steps: Steps, feed: Feed, *, count: int) -> Survey:
    """Takes steps and returns the losses and Gram matrices that they saw.

    Args:
      state: of a recipe whose weighting is `watched_sum`, on its devices; its memory is taken over.
      steps: of that recipe.
      feed: from `data.make_feed`.
      count: number of steps.

    Raises:
      FloatingPointError: if gradients stay non-finite.
    """
    found = []
    bar = tqdm(
        data.prefetch(range(count), feed.at),
        "steps",
        count,
        postfix="compiling",
        disable=not workdir.is_writer(),
    )
    for batch in bar:
        state, shown = steps.update(state, batch)
        diagnostics = state.weighting.diagnostics
        if shown["skipped"] >= MAX_SKIPPED:
            raise FloatingPointError(
                f"gradients were not finite for {MAX_SKIPPED} steps in a row: lower "
                "`learning_rate` or look at the data"
            )
        bar.set_postfix_str("", refresh=False)
        # After a skipped step the state holds the diagnostics of the step before.
        missing = (shown["skipped"] > 0) | (diagnostics["fallback"] > 0)
        found.append(jax.device_get((shown["losses"], diagnostics["gram"], missing)))
    losses, grams, missing = map(np.stack, zip(*found, strict=True))
    return Survey(losses, np.where(missing[:, None, None], np.nan, grams))
