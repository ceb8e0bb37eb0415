"""LDC-MTL: loss discrepancy control."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.learnable import Learnable
from mtl_jax.weighting.numerics.losses import count, masked_softmax

# Range of the router's weights in the authors' code for three tasks; here the lower end is this
# fraction of 1/K for any K.
SMALLEST_SHARE, LARGEST_WEIGHT = 0.6, 0.8


class LdcState(NamedTuple):
    """State of LDC-MTL.

    Attributes:
      router: the logits f32[K] of the router and their optimizer.
      first: f32[K], the first loss seen of each task; 0 before there is one.
    """

    router: Learnable
    first: jax.Array


def ldc_mtl(penalty: float = 0.05, *, learning_rate: float = 0.025) -> Weighting:
    """LDC-MTL: learned weights, and a penalty on differences between the weighted losses.

        total = sum_i v_i l_i / sum_i v_i + penalty sum_i |v_i l_i - v_(i+1) l_(i+1)|
        l_i = L_i min_k F_k / F_i,  v = softmax(z), at least 0.6 / K and at most 0.8

    F_i is the first loss seen of task i. Model and z both descend the total, which replaces the two
    levels of the paper. The differences are those of neighbours, so that the order of the tasks
    matters. The v sum to less than 1.6, so that a penalty up to 0.3 keeps all weights positive. In
    the authors' code for NYU-Depth V2, z comes from a linear layer on the features, and for CelebA
    it is K scalars; here it is K scalars with their own Adam, as in `uw`. The weights sum to about
    one, where those of `equal` sum to K. A loss from 0 to 1e-6 counts as 1e-6; a task with a
    negative loss takes no part.

    Source: Xiao et al., "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy
    Control", 2025.
    Heads: use the same weights.

    Args:
      penalty: factor of the differences, 0 to 0.3; lambda in the paper, whose code uses 0.05 on
        NYU-Depth V2.
      learning_rate: step size of Adam for z, positive.

    Returns:
      A Weighting with an `LdcState` and the diagnostic `router` f32[K], the v of the step.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("ldc_mtl", "penalty", penalty, 0 <= penalty <= 0.3, "0 to 0.3")
    positive = 0 < learning_rate < math.inf
    check_option("ldc_mtl", "learning_rate", learning_rate, positive, "positive and finite")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> LdcState:
        zeros = jnp.zeros(num_tasks, jnp.float32)
        return LdcState(learnable.start(adam, zeros), zeros)

    def update(signals: Present, state: LdcState) -> tuple[jax.Array, LdcState, Diagnostics]:
        takes_part, losses = signals.takes_part, signals.losses
        first = jnp.where(takes_part & (state.first == 0), losses, state.first)
        smallest = jnp.min(jnp.where(first > 0, first, jnp.inf))
        unit = smallest / jnp.where(takes_part, first, 1.0)

        def total(losses: jax.Array, logits: jax.Array) -> jax.Array:
            router = router_weights(logits, takes_part)
            weighted = router * losses * unit
            return jnp.sum(weighted) / jnp.sum(router) + penalty * differences(weighted, takes_part)

        weights, slope = jax.grad(total, argnums=(0, 1))(losses, state.router.value)
        # In the first step all slopes are zero but for rounding, which Adam would blow up.
        learns = takes_part & (state.first > 0)
        new = LdcState(learnable.step(adam, state.router, slope, learns), first)
        return weights, new, {"router": router_weights(state.router.value, takes_part)}

    return from_losses_update(update, init, needs_positive=True)


def router_weights(logits: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns v f32[K], 0 for tasks that take no part."""
    share = masked_softmax(logits, takes_part)
    clipped = jnp.clip(share, SMALLEST_SHARE / count(takes_part), LARGEST_WEIGHT)
    return jnp.where(takes_part, clipped, 0.0)


def differences(values: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the sum of the distances between neighbours among the tasks that take part, f32[]."""
    order = jnp.argsort(~takes_part, stable=True)  # those that take part first, in their order
    ordered, both = values[order], takes_part[order]
    apart = jnp.abs(ordered[1:] - ordered[:-1])
    # In the first step all are equal, and a difference by rounding must not have a slope.
    counts = both[1:] & (apart > 1e-6 * jnp.max(ordered, initial=0.0))
    return jnp.sum(jnp.where(counts, apart, 0.0))
