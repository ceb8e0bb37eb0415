"""Task weightings: how much each task's gradient counts in a step.

Every method is a factory of a `Weighting`, a pair of pure functions `init` and `update` that run
inside the jitted step (`contract.py`). This package imports nothing else of mtl_jax: it serves
any model and any losses.

    weighting = METHODS["nash"](max_norm=1.0)
    state = weighting.init(num_tasks)
    weights, state, diagnostics = weighting.update(Signals(losses, gram, step), state)

By losses alone: `equal`, `uw`. By the gradients' Gram matrix: `nash`. A new method by the Gram
matrix is one function, made a `Weighting` by `by_gram`.
"""

from mtl_jax.weighting.contract import Signals, TaskWeights, Weighting
from mtl_jax.weighting.equal import equal
from mtl_jax.weighting.gram import GramState, by_gram
from mtl_jax.weighting.nash import nash
from mtl_jax.weighting.uncertainty import UncertaintyState, uw

METHODS = {
    "equal": equal,
    "nash": nash,
    "uw": uw,
}

__all__ = [
    "METHODS",
    "GramState",
    "Signals",
    "TaskWeights",
    "UncertaintyState",
    "Weighting",
    "by_gram",
    "equal",
    "nash",
    "uw",
]
