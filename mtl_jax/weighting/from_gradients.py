"""Methods that make the shared gradient entry by entry, or remember gradients: `Weighting.combine`.

Their state is as large as the gradients that they remember, K times the shared parameters.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_gradients, check_num_tasks, check_state, describe
from mtl_jax.weighting.contract import (
    Signals,
    TaskWeights,
    Weighting,
    broken,
    build,
    of_present,
    restrict,
)
from mtl_jax.weighting.from_gram import check_weights, cosines, participants
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, masked_softmax, number


class CombineState(NamedTuple):
    """State of a method in gradient space.

    Attributes:
      method: the method's own state, a pytree of arrays.
      weights: TaskWeights nearest to the last combination, for steps between two of them.
      diagnostics: of the last combination.
    """

    method: Any
    weights: TaskWeights
    diagnostics: dict[str, jax.Array]


SMALLEST_WEIGHT = 1e-6  # of excess_mtl

# (gradients, takes_part, signals, state) -> (gradient, weights, state)
Solve = Callable[[Any, jax.Array, Signals, Any], tuple[Any, TaskWeights, Any]]


def by_gradients(
    init_method: Callable[[int, Any], Any],
    solve: Solve,
    *,
    needs_positive: bool = False,
    needs_key: bool = False,
) -> Weighting:
    """A Weighting made of a function of all gradients.

    A task without labels, or with a gradient of zero, takes no part. Where the loss or gradient of
    one that takes part is not finite, or the method's state would not be, the weights and the state
    are left as they were, and the step counts as a fallback; its gradient is then not finite
    either, which is for the training loop to see.

    Args:
      init_method: (num_tasks, shapes of the shared parameters) -> the method's state.
      solve: (gradients, leaves [K, ...], zero for tasks that take no part; takes_part bool[K];
        signals; state) -> (gradient, the TaskWeights nearest to it, state).
      needs_positive: whether a task with a negative loss takes no part either, as where the losses
        scale or divide the gradients.
      needs_key: whether `solve` draws from `signals.key`.

    Returns:
      A Weighting with a `CombineState` and the diagnostics fallback f32[], participation f32[K],
      gradient_norm f32[K] and cosine f32[K, K], as in `by_gram`.
    """

    def init(num_tasks: int, shared: Any = None) -> CombineState:
        num_tasks = check_num_tasks(num_tasks)
        if shared is None:
            raise ValueError("this weighting's init needs the shapes of the shared parameters")
        ones, zeros = jnp.ones(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.float32)
        nothing = {
            "fallback": jnp.ones((), jnp.float32),
            "participation": zeros,
            "gradient_norm": zeros,
            "cosine": jnp.zeros((num_tasks, num_tasks), jnp.float32),
        }
        weights = TaskWeights(shared=ones, heads=ones)
        return CombineState(init_method(num_tasks, shared), weights, nothing)

    def check(state: Any, num_tasks: int) -> None:
        if not isinstance(state, CombineState):
            raise ValueError(
                f"`state` must be what this weighting's `init` made, got {describe(state)}"
            )
        check_weights(state.weights, num_tasks)

    def update(
        signals: Signals, state: CombineState
    ) -> tuple[TaskWeights, CombineState, dict[str, jax.Array]]:
        return of_present(state.weights, signals), state, state.diagnostics

    def combine(
        gradients: Any, signals: Signals, state: CombineState
    ) -> tuple[Any, TaskWeights, CombineState, dict[str, jax.Array]]:
        num_tasks = check_gradients(gradients, num_tasks=len(signals.losses))
        shapes = jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape[1:], g.dtype), gradients)
        wanted = jax.eval_shape(lambda: init_method(num_tasks, shapes))
        check_state(state.method, wanted, num_tasks)
        takes_part, failed = participants(signals), broken(signals)
        # A finite gradient of a loss that is not must not hide it.
        filling, usable = jnp.where(failed, jnp.nan, 0.0), takes_part & ~failed
        given = jax.tree.map(
            lambda g: jnp.where(_over(usable, g), g, _over(filling, g).astype(g.dtype)), gradients
        )
        parties = restrict(signals, takes_part)
        gradient, weights, new = solve(given, takes_part, parties, state.method)
        good = jnp.any(takes_part) & ~jnp.any(failed)
        for leaf in jax.tree.leaves((weights, new)):
            good &= jnp.all(jnp.isfinite(leaf))
        keep = lambda after, before: jnp.where(good, after, before)  # noqa: E731
        facts = {
            "fallback": 1.0 - good.astype(jnp.float32),
            "participation": takes_part.astype(jnp.float32),
            "gradient_norm": jnp.sqrt(jnp.diagonal(parties.gram)),
            "cosine": cosines(parties.gram),
        }
        facts = jax.tree.map(
            lambda now, before: jnp.where(jnp.isfinite(now), now, before), facts, state.diagnostics
        )
        # A method may remember gradients, but without a task there is nothing to follow.
        anybody = jnp.any(takes_part)
        gradient = jax.tree.map(
            lambda x, g: jnp.where(anybody, x, 0.0).astype(g.dtype), gradient, gradients
        )
        weights = jax.tree.map(keep, weights, state.weights)
        new = CombineState(jax.tree.map(keep, new, state.method), weights, facts)
        return gradient, of_present(weights, signals), new, facts

    return build(
        Weighting(init=init, update=update, needs_gram=True, combine=combine),
        check_state=check,
        needs_positive=needs_positive,
        needs_key=needs_key,
    )


def graddrop() -> Weighting:
    """GradDrop: where tasks disagree on the sign of an entry, one sign is drawn and kept.

    Chen et al., "Just Pick a Sign", NeurIPS 2020: an entry keeps its positive parts with
    probability (1 + sum_i g_i / sum_i |g_i|) / 2, else its negative ones; what is kept is summed.
    Applied to the gradients of the shared parameters, where the paper has it at the features.
    Stateless.
    """

    def solve(
        gradients: Any, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[Any, TaskWeights, Any]:
        leaves, structure = jax.tree.flatten(gradients)
        keys = jax.random.split(signals.key, len(leaves))

        def keep(key: jax.Array, g: jax.Array) -> jax.Array:
            size = jnp.sum(jnp.abs(g), axis=0)
            purity = 0.5 * (1.0 + jnp.sum(g, axis=0) / jnp.where(size == 0, 1.0, size))
            positive = jax.random.uniform(key, size.shape, g.dtype) < purity
            return jnp.sum(jnp.where(positive == (g > 0), g, 0.0), axis=0)

        kept = [keep(key, leaf) for key, leaf in zip(keys, leaves, strict=True)]
        ones = jnp.ones(takes_part.shape, jnp.float32)
        return structure.unflatten(kept), TaskWeights(shared=ones, heads=ones), state

    return by_gradients(lambda num_tasks, shared: (), solve, needs_key=True)


class Memory(NamedTuple):
    """Gradients remembered.

    Attributes:
      gradients: pytree of leaves f32[K, ...].
      count: i32[], steps so far.
      weights: f32[K], the method's own.
    """

    gradients: Any
    count: jax.Array
    weights: jax.Array


def db_mtl(*, beta: float = 0.9, sigma: float = 0.0) -> Weighting:
    """DB-MTL: gradients of the log losses, smoothed, all brought to the length of the longest.

    Lin et al., "Dual-Balancing for Multi-Task Learning", 2023: y_i moves to g_i / L_i as
    y = g + (beta / t^sigma) (y - g), and sum_i (max_k |y_k| / |y_i|) y_i is followed. The heads
    follow their log losses. A loss from 0 to 1e-8 counts as 1e-8, where LibMTL adds 1e-8; a task
    with a negative loss takes no part. Where the weights are held between two updates they weigh
    gradients that are not smoothed, and so are longer.

    Args:
      beta: how much of the old y stays, 0 (none) to 1 (excluded).
      sigma: how fast that fades with the steps.

    Returns:
      A Weighting with a `Memory` as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    if not 0 <= beta < 1 or not 0 <= sigma < math.inf:
        raise ValueError(f"db_mtl needs 0 <= beta < 1 and sigma >= 0, got {beta} and {sigma}")

    def solve(
        gradients: Any, takes_part: jax.Array, signals: Signals, state: Memory
    ) -> tuple[Any, TaskWeights, Memory]:
        count = state.count + 1
        inverse = 1.0 / jnp.maximum(jnp.where(takes_part, signals.losses, 1.0), SMALLEST_LOSS)
        fade = beta / count.astype(jnp.float32) ** sigma
        memory = _move(state.gradients, gradients, inverse, 1.0 - fade, takes_part)
        norms = jnp.where(takes_part, _norms(memory), 0.0)
        scale = jnp.where(norms > 0, jnp.max(norms) / jnp.where(norms > 0, norms, 1.0), 0.0)
        weights = TaskWeights(shared=scale * inverse, heads=inverse)
        return _sum(memory, scale), weights, Memory(memory, count, state.weights)

    return by_gradients(_remember, solve, needs_positive=True)


def moco(*, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0) -> Weighting:
    """MoCo: min-norm weights learned on smoothed gradients.

    Fernando et al., "Mitigating Gradient Bias in Multi-Objective Learning", ICLR 2023, as in
    LibMTL: with h_i = L_i g_i / |g_i|, y_i -= beta / sqrt(t) (y_i - h_i),
    w = softmax(w - gamma / sqrt(t) (Y Y' + rho) w), and sum_i w_i y_i is followed. The weights sum
    to one; the heads follow their plain losses. A task with a negative loss, which would turn its
    gradient round, takes no part. Held weights are as in `db_mtl`.

    Args:
      beta: step of y.
      gamma: step of w.
      rho: pulls w towards equality.

    Returns:
      A Weighting with a `Memory` as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    if not 0 < beta <= 1 or not 0 < gamma < math.inf or not 0 <= rho < math.inf:
        raise ValueError(
            f"moco needs 0 < beta <= 1, gamma > 0 and rho >= 0, got {beta}, {gamma} and {rho}"
        )

    def solve(
        gradients: Any, takes_part: jax.Array, signals: Signals, state: Memory
    ) -> tuple[Any, TaskWeights, Memory]:
        count = state.count + 1
        root = jnp.sqrt(count.astype(jnp.float32))
        norms = jnp.where(takes_part, jnp.sqrt(jnp.diagonal(signals.gram)), 1.0)
        length = jnp.where(takes_part, signals.losses, 0.0) / norms
        memory = _move(state.gradients, gradients, length, beta / root, takes_part)
        products = sum(
            jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
            for x in (y.reshape(len(y), -1) for y in jax.tree.leaves(memory))
        )
        products = jnp.where(takes_part[:, None] & takes_part, products, 0.0)
        old = jnp.where(takes_part, state.weights, 0.0)
        old = old / jnp.maximum(jnp.sum(old), SMALLEST_LOSS)
        slope = jnp.matmul(products, old, precision=jax.lax.Precision.HIGHEST) + rho * old
        new = masked_softmax(old - gamma / root * slope, takes_part)
        weights = TaskWeights(shared=new * length, heads=jnp.ones_like(new))
        kept = jnp.where(takes_part, new, state.weights)
        return _sum(memory, new), weights, Memory(memory, count, kept)

    return by_gradients(_remember, solve, needs_positive=True)


def excess_mtl(*, eta: float = 1e-2) -> Weighting:
    """ExcessMTL: tasks that are far from their optimum count more.

    He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024. With S_i the sum of the
    squared gradients so far, e_i = sum g_i^2 / sqrt(S_i + 1e-7) estimates the excess risk; over its
    first value it makes w_i *= exp(eta e_i), w scaled to the sum K, as in LibMTL.

    Args:
      eta: step of the weights.

    Returns:
      A Weighting whose own state is a `Memory` of the squares and w, and the first e f32[K], 0
      where there is none yet.

    Raises:
      ValueError: for an eta that is not positive.
    """
    if not 0 < eta < math.inf:
        raise ValueError(f"excess_mtl's eta must be positive and finite, got {eta}")

    def init(num_tasks: int, shared: Any) -> tuple[Memory, jax.Array]:
        memory = _remember(num_tasks, shared)._replace(weights=jnp.ones(num_tasks, jnp.float32))
        return memory, jnp.zeros(num_tasks, jnp.float32)

    def solve(
        gradients: Any, takes_part: jax.Array, signals: Signals, state: tuple[Memory, jax.Array]
    ) -> tuple[Any, TaskWeights, tuple[Memory, jax.Array]]:
        memory, first = state
        squares = jax.tree.map(
            lambda s, g: s + jnp.square(g.astype(jnp.float32)), memory.gradients, gradients
        )
        excess = sum(
            jnp.sum(
                (jnp.square(g.astype(jnp.float32)) / jnp.sqrt(s + 1e-7)).reshape(len(g), -1), axis=1
            )
            for g, s in zip(jax.tree.leaves(gradients), jax.tree.leaves(squares), strict=True)
        )
        first = jnp.where(takes_part & (first == 0), excess, first)
        ratio = excess / jnp.where(first > 0, first, 1.0)
        # As a softmax, which knows no overflow; no weight shrinks to where it could not come back.
        logits = jnp.log(memory.weights) + eta * ratio
        new = jnp.maximum(number(takes_part) * masked_softmax(logits, takes_part), SMALLEST_WEIGHT)
        new = jnp.where(takes_part, new, memory.weights)
        memory = Memory(squares, memory.count + 1, new)
        return _sum(gradients, new), TaskWeights(shared=new, heads=new), (memory, first)

    return by_gradients(init, solve)


def _remember(num_tasks: int, shared: Any) -> Memory:
    zeros = jax.tree.map(lambda x: jnp.zeros((num_tasks, *x.shape), jnp.float32), shared)
    uniform = jnp.full(num_tasks, 1.0 / num_tasks, jnp.float32)
    return Memory(zeros, jnp.zeros((), jnp.int32), uniform)


def _move(
    memory: Any, gradients: Any, scale: jax.Array, step: jax.Array, takes_part: jax.Array
) -> Any:
    """The memory moved towards the scaled gradients, where tasks take part."""

    def leaf(y: jax.Array, g: jax.Array) -> jax.Array:
        moved = y + step * (_over(scale, g) * g.astype(jnp.float32) - y)
        return jnp.where(_over(takes_part, g), moved, y)

    return jax.tree.map(leaf, memory, gradients)


def _norms(gradients: Any) -> jax.Array:
    squares = (jnp.square(g.reshape(len(g), -1)) for g in jax.tree.leaves(gradients))
    return jnp.sqrt(sum(jnp.sum(x, axis=1) for x in squares))


def _sum(gradients: Any, weights: jax.Array) -> Any:
    return jax.tree.map(
        lambda g: jnp.sum(_over(weights, g) * g.astype(jnp.float32), axis=0), gradients
    )


def _over(values: jax.Array, leaf: jax.Array) -> jax.Array:
    """Values [K] shaped to multiply a leaf [K, ...]."""
    return values.reshape(-1, *[1] * (leaf.ndim - 1))
