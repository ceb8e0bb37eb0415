"""Task weightings: how much each task's gradient counts in a step.

This package imports nothing else of mtl_jax: it serves any model and any losses. A `Weighting` is a
pair of pure functions, `init` and `update`, that run inside the jitted step (`contract.py`). In
your own training loop, `combine_tasks` turns the gradients of K losses into one, in front of any
optax optimizer:

    >>> import jax, jax.numpy as jnp, optax
    >>> from mtl_jax.weighting import combine_tasks, task_gradients
    >>> def losses_of(x):  # two tasks with different optima, one with a thousand times larger loss
    ...     return jnp.stack([jnp.sum((x - 1) ** 2), 1000 * jnp.sum((x + 1) ** 2)])
    >>> tx = optax.chain(combine_tasks("imtl_g", num_tasks=2), optax.sgd(0.1))
    >>> x = jnp.array([3.0, 2.0])
    >>> state = tx.init(x)
    >>> @jax.jit
    ... def step(x, state):
    ...     losses, gradients = task_gradients(losses_of, x)
    ...     updates, state = tx.update(gradients, state, x, losses=losses)
    ...     return optax.apply_updates(x, updates), state
    >>> for _ in range(200):
    ...     x, state = step(x, state)
    >>> print(abs(x[0] - x[1]) < 0.01)
    True

`METHODS` has all methods by name, and `make` makes one from a text with options such as
`fairgrad:alpha=2`. A method by itself maps the signals of a step to weights:

    >>> from mtl_jax.weighting import Signals, nash
    >>> weighting = nash()
    >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])  # inner products of two gradients
    >>> signals = Signals(losses=jnp.ones(2), gram=gram, step=jnp.array(0))
    >>> weights, state, diagnostics = weighting.update(signals, weighting.init(2))
    >>> print(weights.heads.round(4))
    [0.5915 0.4071]

`diagnose` shows from the Gram matrices of some steps what a weighting may correct.

Your own method is one function:

    >>> from mtl_jax.weighting import from_gram
    >>> def same_length():
    ...     return from_gram(lambda gram: 1 / jnp.sqrt(jnp.diagonal(gram)))
    >>> signals = Signals(jnp.ones(2), jnp.array([[4.0, 1.0], [1.0, 0.25]]), step=jnp.array(0))
    >>> weights, _, _ = same_length().update(signals, same_length().init(2))
    >>> print(weights.shared)
    [0.5 2. ]

`from_losses`, `from_total` and `from_gradients` do the same for functions of the losses, a total
loss, and functions of the gradients themselves. docs/weightings.md says which published methods are
not included, and why.
"""

from mtl_jax.weighting.backward import task_gradients, weighted_gradient
from mtl_jax.weighting.contract import Present, Signals, TaskWeights, Weighting
from mtl_jax.weighting.diagnosis import Diagnosis, diagnose
from mtl_jax.weighting.from_gradients import (
    GradientsState,
    from_gradients,
    from_gradients_update,
)
from mtl_jax.weighting.from_gram import GramState, from_gram, from_gram_update
from mtl_jax.weighting.from_losses import from_losses, from_losses_update, from_total
from mtl_jax.weighting.gradients import combine, gram, inner_products, pull_back
from mtl_jax.weighting.make import make
from mtl_jax.weighting.methods import (
    METHODS,
    TITLES,
    aligned_mtl,
    cagrad,
    config,
    cr_mogm,
    db_mtl,
    dualproj,
    dwa,
    dwa_window,
    equal,
    excess_mtl,
    fairgrad,
    famo,
    fixed,
    gls,
    go4align,
    graddrop,
    gradnorm,
    gradvac,
    igb,
    imtl,
    imtl_g,
    imtl_l,
    inverse_norm,
    ldc_mtl,
    mgda,
    moco,
    modo,
    nash,
    pbi,
    pcd,
    pcgrad,
    rlw,
    sdmgrad,
    si,
    stch,
    upgrad,
    uw,
    uw_so,
)
from mtl_jax.weighting.transformation import CombineTasksState, combine_tasks

__all__ = [
    "CombineTasksState",
    "Diagnosis",
    "GradientsState",
    "GramState",
    "METHODS",
    "Present",
    "Signals",
    "TITLES",
    "TaskWeights",
    "Weighting",
    "aligned_mtl",
    "cagrad",
    "combine",
    "combine_tasks",
    "config",
    "cr_mogm",
    "db_mtl",
    "diagnose",
    "dualproj",
    "dwa",
    "dwa_window",
    "equal",
    "excess_mtl",
    "fairgrad",
    "famo",
    "fixed",
    "from_gradients",
    "from_gradients_update",
    "from_gram",
    "from_gram_update",
    "from_losses",
    "from_losses_update",
    "from_total",
    "gls",
    "go4align",
    "graddrop",
    "gradnorm",
    "gradvac",
    "gram",
    "igb",
    "imtl",
    "imtl_g",
    "imtl_l",
    "inner_products",
    "inverse_norm",
    "ldc_mtl",
    "make",
    "mgda",
    "moco",
    "modo",
    "nash",
    "pbi",
    "pcd",
    "pcgrad",
    "pull_back",
    "rlw",
    "sdmgrad",
    "si",
    "stch",
    "task_gradients",
    "upgrad",
    "uw",
    "uw_so",
    "weighted_gradient",
]
