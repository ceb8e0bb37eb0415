"""Losses and gradients of a function that returns K losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import (
    check_labelled,
    check_losses,
    check_params,
    check_weights,
    describe,
)
from mtl_jax.weighting.contract import PyTree, TaskWeights
from mtl_jax.weighting.leaves import Mask, Parts, lay_out, without_fixed, zeros_for_fixed


def task_gradients(
    losses_of: Callable[[PyTree], Any], params: PyTree, *, has_aux: bool = False
) -> tuple[Any, PyTree]:
    """Computes losses and gradients of any function that returns K losses.

    It makes one forward pass and then K backward passes in one `jax.vmap`.

    Args:
      losses_of: parameters -> f32[K], or a list or tuple of K scalars; it may close over a batch.
      params: any pytree of arrays, such as those of Flax, Equinox and Haiku. Integers and booleans
        are passed on, and their gradients are zeros of their own dtype.
      has_aux: whether `losses_of` returns a pair (losses, anything else), such as new batch
        statistics.

    Returns:
      f32[K], or a pair (f32[K], the rest) with `has_aux`; and a pytree like the parameters, its
      leaves [K, ...].

    Raises:
      ValueError: while it is traced, for losses or parameters of a wrong type or shape.
    """
    check_params(without_fixed(params))
    layout = lay_out(params)
    parts = layout.split(params)
    losses, pullback, aux = jax.vjp(
        lambda shared: _call(losses_of, layout.join(parts._replace(shared=shared)), has_aux),
        parts.shared,
        has_aux=True,
    )
    (each,) = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))
    zeros = zeros_for_fixed(parts.fixed, len(losses))
    gradients = layout.join(Parts(shared=each, heads=[], fixed=zeros))
    return ((losses, aux) if has_aux else losses), gradients


def weighted_gradient(
    losses_of: Callable[[PyTree], Any],
    params: PyTree,
    weights: TaskWeights,
    *,
    heads: Mask | None = None,
    labelled: jax.Array | None = None,
    axis_name: str | None = None,
    has_aux: bool = False,
) -> tuple[Any, PyTree]:
    """Computes losses and the gradient of their weighted sum: one backward pass for given weights.

    Args:
      losses_of: see `task_gradients`.
      params: see `task_gradients`.
      weights: such as `weights` in the state of `combine_tasks`; they are constants.
      heads: which parameters belong to heads and get `weights.heads`, see `combine_tasks`; the
        backward pass of the heads is then made twice.
      labelled: bool[K], whether the batch has labels of each task; None for all. The derivatives of
        an absent task's loss must be finite, as those of a constant are.
      axis_name: see `combine_tasks`; losses and gradient are then those of all devices.
      has_aux: see `task_gradients`.

    Returns:
      f32[K], or a pair (f32[K], the rest) with `has_aux`; and a pytree like the parameters, which
      is not finite if the loss of a task with labels isn't.

    Raises:
      ValueError: while it is traced, for losses, parameters or weights of a wrong type or shape.
    """
    check_params(without_fixed(params))
    layout = lay_out(params, heads)
    parts = layout.split(params)
    losses, pullback, aux = jax.vjp(
        lambda shared, own: _call(losses_of, layout.join(Parts(shared, own, parts.fixed)), has_aux),
        parts.shared,
        parts.heads,
        has_aux=True,
    )
    present = None if labelled is None else check_labelled(labelled, len(losses))
    share = shares(present, len(losses), axis_name)
    shared, own = (
        share.astype(losses.dtype) * followed(weight, losses, present).astype(losses.dtype)
        for weight in check_weights(weights, len(losses))
    )
    total = (pullback(shared)[0], pullback(own)[1] if parts.heads else [])
    if axis_name is not None:
        losses = mean_losses(losses, share, axis_name)
        total = jax.lax.psum(total, axis_name)
    gradient = layout.join(Parts(*total, fixed=zeros_for_fixed(parts.fixed)))
    return ((losses, aux) if has_aux else losses), gradient


def _call(losses_of: Callable[[PyTree], Any], params: PyTree, has_aux: bool) -> tuple[Any, Any]:
    """Returns the losses as one array, and the rest of what the function returns."""
    found, aux = losses_of(params), None
    if has_aux:
        if not isinstance(found, tuple) or len(found) != 2:
            raise ValueError(
                f"`losses_of(params)` must be a pair (losses, the rest) with has_aux=True; got "
                f"{describe(found)}"
            )
        found, aux = found
    return check_losses(found, name="losses_of(params)"), aux


def followed(weights: jax.Array, losses: jax.Array, present: jax.Array | None) -> jax.Array:
    """Returns weights f32[K] as a step follows them.

    That is 0 for absent tasks, and NaN for a loss that is not finite: a finite gradient, or a
    weight of zero, must not hide it.

    Args:
      losses: f32[K].
      present: bool[K], the tasks with labels; None for all.
    """
    weights = jnp.where(jnp.isfinite(losses), weights, jnp.nan)
    return jax.lax.stop_gradient(weights if present is None else jnp.where(present, weights, 0.0))


def shares(present: jax.Array | None, num_tasks: int, axis_name: str | None) -> jax.Array:
    """Returns the factors f32[K] of this device's losses in the means over the devices.

    Args:
      present: bool[K], the tasks with labels on this device; None for all.
      num_tasks: K.
      axis_name: axis of the devices; None for one device.
    """
    ones = jnp.ones(num_tasks, jnp.float32)
    here = ones if present is None else present.astype(jnp.float32)
    return here if axis_name is None else here / jnp.maximum(jax.lax.psum(here, axis_name), 1.0)


def mean_losses(losses: jax.Array, share: jax.Array, axis_name: str) -> jax.Array:
    """Returns the means f32[K] of the devices' losses; `share` is what `shares` returns."""
    return jax.lax.psum(jnp.where(share > 0, losses, 0) * share.astype(losses.dtype), axis_name)
