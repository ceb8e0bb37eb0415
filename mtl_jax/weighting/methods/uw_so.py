"""Soft optimal uncertainty weighting."""

import math

import jax

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.losses import masked_softmax


def uw_so(temperature: float = 1.0) -> Weighting:
    """Soft optimal uncertainty weighting: small losses count most, as in the optimum of `uw`.

        w = softmax((1 / L) / T)

    The optimum of uncertainty weighting has weights proportional to 1 / L_i; the softmax tempers
    them. The weights sum to one, where those of `equal` sum to K. They depend on the unit of the
    losses: the paper chooses T on validation data for every data set and network. With losses of
    0.1 and 1 and T = 1, the second task has almost no weight. A task with a negative loss takes no
    part.

    Source: Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task
    Learning", 2024.
    Heads: use the same weights.

    Args:
      temperature: T, positive; the larger, the more similar the weights.

    Raises:
      ValueError: for a temperature that is not positive.
    """
    check_option(
        "uw_so", "temperature", temperature, 0 < temperature < math.inf, "positive and finite"
    )

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        return masked_softmax(1 / signals.losses / temperature, signals.takes_part), state, {}

    return from_losses_update(update, needs_positive=True)
