"""Random loss weighting."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.losses import masked_softmax

FORMS = ("normal", "dirichlet")


def rlw(form: str = "normal") -> Weighting:
    """Random loss weighting: new random weights at every step.

        w = softmax(z),  z_i standard normal

    The weights sum to one, where those of `equal` sum to K. They are drawn from `Signals.key`.

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR 2022.
    Heads: use the same weights.

    Args:
      form: "normal", as above, or "dirichlet", weights distributed uniformly over the simplex.

    Raises:
      ValueError: for another form.
    """
    check_option("rlw", "form", form, form in FORMS, f"one of {', '.join(FORMS)}")

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        shape = signals.losses.shape
        if form == "normal":
            logits = jax.random.normal(signals.key, shape, jnp.float32)
        else:
            # Exponential variables over their sum are uniform on the simplex.
            drawn = jax.random.exponential(signals.key, shape, jnp.float32)
            logits = jnp.log(jnp.maximum(drawn, jnp.finfo(jnp.float32).tiny))
        return masked_softmax(logits, signals.takes_part), state, {}

    return from_losses_update(update, needs_key=True)
