"""CR-MOGM: the average of another method's weights."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option, describe
from mtl_jax.weighting.contract import Diagnostics, PyTree, Signals, TaskWeights, Weighting
from mtl_jax.weighting.methods.nash import nash
from mtl_jax.weighting.rules import check_kept


class AverageState(NamedTuple):
    """State of CR-MOGM.

    Attributes:
      inner: state of the method whose weights are averaged.
      weights: TaskWeights, the averages; ones before the first update.
      seen: bool[K], whether the task has taken part.
    """

    inner: PyTree
    weights: TaskWeights
    seen: jax.Array


def cr_mogm(method: Weighting | None = None, *, decay: float = 0.9) -> Weighting:
    """CR-MOGM: the moving average of the weights of any other method.

        w = decay w + (1 - decay) v,  v the weights of the method

    Averages vary less from step to step than the weights of a single batch, which is what methods
    by the gradients need to converge. The paper starts at 1/K; here the average starts at the first
    weights, because those of many methods have another sum. It moves in steps that update the
    weights, for tasks that take part in them. A limit on the norm of the combined gradient, such as
    that of `nash`, is applied to the weights before they are averaged. Methods that make the
    gradient themselves have no weights to average and are refused. A step costs what the method
    costs: with `uw`, for example, one backward pass.

    Source: Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and
    Beyond", NeurIPS 2022.
    Heads: use the averages of the method's weights for the heads.

    Args:
      method: a Weighting such as `uw()`; as text, the method with its options joined by plus signs,
        as in `cr_mogm:method=fairgrad:alpha=1+max_norm=2,decay=0.5`. None for `nash`.
      decay: share of the old average that is kept, 0 (none) to 1 (excluded).

    Returns:
      A Weighting with an `AverageState` and the diagnostics of the method.

    Raises:
      ValueError: for a decay out of its range, or a method without weights.
    """
    check_option("cr_mogm", "decay", decay, 0 <= decay < 1, "0 to 1 (excluded)")
    inner = nash() if method is None else method
    if not isinstance(inner, Weighting):
        raise ValueError(
            f"cr_mogm's method must be a Weighting such as uw(), got {describe(method)}"
        )
    if inner.combine is not None:
        raise ValueError(
            "cr_mogm's method must weigh the gradients, and this one makes the gradient itself"
        )
    follow_up = None if inner.follow_up is None else partial(_follow_up, inner)
    return inner._replace(
        init=partial(_init, inner), update=partial(_update, inner, decay), follow_up=follow_up
    )


def _init(inner: Weighting, num_tasks: int, shared: PyTree = None) -> AverageState:
    state = inner.init(num_tasks, shared)
    ones = jnp.ones(num_tasks, jnp.float32)
    return AverageState(state, TaskWeights(ones, ones), ones < 1)


def _update(
    inner: Weighting, decay: float, signals: Signals, state: AverageState
) -> tuple[TaskWeights, AverageState, Diagnostics]:
    if hasattr(signals, "losses"):
        check_kept(state, len(signals.losses), kind=AverageState)
    weights, new, diagnostics = inner.update(signals, state.inner)
    average, seen, takes_part = state.weights, state.seen, diagnostics["participation"] > 0
    if inner.needs == "losses":
        absent = ~takes_part
    else:
        # A task with a gradient of zero takes no part either, but its head is trained.
        absent = diagnostics.get("negative_loss", jnp.zeros_like(weights.shared)) > 0
        if signals.labelled is not None:
            absent |= ~jnp.asarray(signals.labelled)
    if inner.needs == "losses" or signals.gram is not None:
        moves = (
            takes_part if inner.needs == "losses" else takes_part & (diagnostics["fallback"] == 0)
        )
        kept = jnp.where(seen, decay, 0.0)
        average = jax.tree.map(
            lambda old, v: jnp.where(moves, kept * old + (1.0 - kept) * v, old), average, weights
        )
        seen |= moves
    followed = jax.tree.map(lambda x: jnp.where(absent, 0.0, x), average)
    return jax.lax.stop_gradient((followed, AverageState(new, average, seen), diagnostics))


def _follow_up(
    inner: Weighting, losses: jax.Array, signals: Signals, state: AverageState
) -> AverageState:
    assert inner.follow_up is not None
    return state._replace(inner=inner.follow_up(losses, signals, state.inner))
