"""Steps of a training as a method sees them, and each method's compiled program."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

SIZE = 60
SHAPES = jax.ShapeDtypeStruct((SIZE,), jnp.float32)
# They draw a number, or an order, for each task's place.
DRAWS = {"rlw", "pcgrad", "gradvac"}
# Their weights may be zero or negative.
SIGNED = {
    "pbi", "mgda", "pcgrad", "gradvac", "imtl_g", "imtl", "aligned_mtl", "config", "modo", "db_mtl",
    "moco", "pcd",
}  # fmt: skip
# One method of each kind of program: losses, a random draw, an inner optimiser, Newton's method,
# a quadratic program, tasks met in turn, singular values, the gradients themselves.
KINDS = {"si", "rlw", "famo", "nash", "mgda", "pcgrad", "aligned_mtl", "moco"}
# All methods, of which the usual tests take one of each kind where a method is compiled once more.
EACH_KIND = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in METHODS],
)


class Step(NamedTuple):
    """What a method may see of a step: a method reads the gradients only in its `combine`."""

    signals: Signals
    gradients: jax.Array

    def change(self, **changes) -> "Step":
        return self._replace(signals=self.signals._replace(**changes))

    def scale(self, factor) -> "Step":
        """The same step with longer gradients."""
        matrices = {key: factor**2 * getattr(self.signals, key) for key in ("gram", "cross")}
        return self.change(**matrices)._replace(gradients=factor * self.gradients)

    def choose(self, tasks) -> "Step":
        """The step of some of its tasks, or of all in another order."""
        old = self.signals
        signals = old._replace(
            losses=old.losses[tasks],
            gram=old.gram[tasks][:, tasks],
            cross=old.cross[tasks][:, tasks],
            labelled=old.labelled[tasks],
        )
        return Step(signals, self.gradients[tasks])

    def set_row(self, task, value) -> "Step":
        """The step with another gradient of one task."""
        matrices = {
            key: getattr(self.signals, key).at[task, :].set(value).at[:, task].set(value)
            for key in ("gram", "cross")
        }
        return self.change(**matrices)._replace(gradients=self.gradients.at[task].set(value))


def step(num_tasks: int, seed: int = 0, **changes) -> Step:
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((num_tasks, SIZE)).astype(np.float32)
    other = rng.standard_normal((2, num_tasks, SIZE)).astype(np.float32)
    plain = Signals(
        losses=jnp.asarray(rng.uniform(0.1, 3.0, num_tasks).astype(np.float32)),
        gram=jnp.asarray(gradients @ gradients.T),
        step=jnp.array(0, jnp.int32),
        key=jax.random.key(seed),
        cross=jnp.asarray((gradients + other[0]) @ (gradients + other[1]).T),
        # As good as nothing, but the same program as where some are not.
        labelled=jnp.ones(num_tasks, bool),
    )
    return Step(plain, jnp.asarray(gradients)).change(**changes)


def advance(weighting, given, state):
    """(weights, state, diagnostics) of a step, by `combine` where a loop would call that."""
    if weighting.combine is None or given.signals.gram is None:
        return weighting.update(given.signals, state)
    return weighting.combine(given.gradients, given.signals, state)[1:]


@functools.cache
def compiled(name):
    weighting = METHODS[name]()
    combine = weighting.combine and jax.jit(weighting.combine)
    return weighting._replace(update=jax.jit(weighting.update), combine=combine)


def assert_same_kind(after, before):
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)


def assert_close(found, expected, *, rtol):
    """With many tasks the weights that are small next to others have fewer digits."""
    atol = 0.0 if len(expected) <= 3 else 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.all(np.isfinite(leaf)), leaf
