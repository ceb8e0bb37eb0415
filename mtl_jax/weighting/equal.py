"""Equal weighting: the plain sum of the losses, total = sum_i L_i."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, TaskWeights, Weighting, check_num_tasks


def equal() -> Weighting:
    """Every task has weight one. The state is empty; there are no diagnostics."""

    def init(num_tasks: int, shared: Any = None) -> tuple[()]:
        check_num_tasks(num_tasks)
        return ()

    def update(signals: Signals, state: Any) -> tuple[TaskWeights, Any, dict[str, jax.Array]]:
        ones = jnp.ones(signals.losses.shape, jnp.float32)
        return TaskWeights(shared=ones, heads=ones), state, {}

    return Weighting(init=init, update=update, needs_gram=False)
