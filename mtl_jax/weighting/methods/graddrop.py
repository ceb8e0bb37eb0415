"""GradDrop: gradient sign dropout."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Present, PyTree, TaskWeights, Weighting
from mtl_jax.weighting.from_gradients import from_gradients_update


def graddrop() -> Weighting:
    """GradDrop: where tasks disagree on the sign of an entry, one sign is drawn and kept.

        P(positive) = (1 + sum_i g_i / sum_i |g_i|) / 2

    One sign is drawn for every entry, and the tasks' parts with that sign are summed. The method is
    applied to the gradients of the shared parameters, where the paper applies it to those of the
    features.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
    Dropout", NeurIPS 2020.
    Heads: follow their own losses, with weight one.
    """

    def update(
        gradients: PyTree, signals: Present, state: PyTree
    ) -> tuple[PyTree, TaskWeights, PyTree]:
        leaves, structure = jax.tree.flatten(gradients)
        keys = jax.random.split(signals.key, len(leaves))
        kept = [keep_one_sign(key, leaf) for key, leaf in zip(keys, leaves, strict=True)]
        ones = jnp.ones(signals.takes_part.shape, jnp.float32)
        return structure.unflatten(kept), TaskWeights(shared=ones, heads=ones), state

    return from_gradients_update(update, needs_key=True)


def keep_one_sign(key: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the sum f32[...] over the tasks of the entries [K, ...] that have the sign drawn."""
    # In bfloat16 a probability close to one would be rounded to one.
    g = g.astype(jnp.float32)
    size = _total(jnp.abs(g))
    purity = 0.5 * (1.0 + _total(g) / jnp.where(size == 0, 1.0, size))
    positive = jax.random.uniform(key, size.shape, g.dtype) < purity
    return _total(jnp.where(positive == (g > 0), g, 0.0))


def _total(each: jax.Array) -> jax.Array:
    """Returns the sum over the tasks of [K, ...]."""
    # Term by term: on a CPU XLA takes fifty times as long for a sum over the first axis.
    return sum(each[1:], each[0])
