"""The weightings for people with a training loop of their own, in the manner of optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax import gradients as task_gradients
from mtl_jax.weighting import Signals, Weighting


class BalanceState(NamedTuple):
    """State of a balance.

    Attributes:
      step: i32[], updates so far.
      key: PRNG key from which each step's is made.
      weighting: state of the weighting.
    """

    step: jax.Array
    key: jax.Array
    weighting: Any


class Balance(NamedTuple):
    """Turns K gradients into one.

    Attributes:
      init: (num_tasks, params) -> state.
      update: (losses f32[K], gradients with leaves [K, ...], state, labelled) -> (gradient, state);
        pure, to be called inside jit. The gradient is like the parameters, for any optimizer.
        `labelled` bool[K] says of which tasks the batch has labels, None of all.
    """

    init: Callable[[int, Any], BalanceState]
    update: Callable[..., tuple[Any, BalanceState]]


def balance(weighting: Weighting, *, seed: int = 0) -> Balance:
    """A weighting as a function of gradients; all parameters count as shared.

    Args:
      weighting: such as `METHODS["nash"]()`.
      seed: of weightings that draw.

    Raises:
      ValueError: for a weighting that needs parts of the batch or the losses after the step, which
        gradients alone don't tell.
    """
    if weighting.needs_cross or weighting.follow_up is not None:
        raise ValueError(
            "this weighting needs more than the losses and gradients of a step: call its `update` "
            "(and `follow_up`) yourself"
        )

    def init(num_tasks: int, params: Any) -> BalanceState:
        shapes = jax.eval_shape(lambda: params)
        # Copied: a method may put one array twice into its state, which could then not be donated.
        state = jax.tree.map(jnp.copy, weighting.init(num_tasks, shapes))
        return BalanceState(jnp.zeros((), jnp.int32), jax.random.key(seed), state)

    def update(
        losses: jax.Array, gradients: Any, state: BalanceState, labelled: jax.Array | None = None
    ) -> tuple[Any, BalanceState]:
        signals = Signals(
            losses=losses,
            gram=task_gradients.gram(gradients) if weighting.needs_gram else None,
            step=state.step,
            key=jax.random.fold_in(state.key, state.step),
            labelled=labelled,
        )
        if weighting.combine is not None:
            gradient, _, new, _ = weighting.combine(gradients, signals, state.weighting)
        else:
            weights, new, _ = weighting.update(signals, state.weighting)
            gradient = task_gradients.combine(gradients, weights.shared)
        return gradient, BalanceState(state.step + 1, state.key, new)

    return Balance(init, update)
