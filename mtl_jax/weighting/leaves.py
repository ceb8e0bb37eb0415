"""The leaves of a pytree in groups: shared parameters, those of heads, and fixed ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.check import describe, has_no_gradient
from mtl_jax.weighting.contract import PyTree

# Which parameters belong to heads: a pytree of booleans, or a function that makes one.
Mask = PyTree | Callable[[PyTree], PyTree]


class Parts(NamedTuple):
    """The leaves of a pytree by group.

    Attributes:
      shared: of the parameters that the tasks share.
      heads: of the parameters of the tasks' heads.
      fixed: integers and booleans, which have no gradient.
    """

    shared: list[Any]
    heads: list[Any]
    fixed: list[Any]


class Layout(NamedTuple):
    """The group of each leaf of a pytree.

    Attributes:
      structure: of the pytree.
      groups: for each leaf the name of its field in `Parts`.
    """

    structure: Any
    groups: tuple[str, ...]

    def split(self, tree: PyTree) -> Parts:
        """Returns the leaves of a pytree of this structure."""
        leaves = self.structure.flatten_up_to(tree)
        named = list(zip(self.groups, leaves, strict=True))
        return Parts(*([leaf for name, leaf in named if name == x] for x in Parts._fields))

    def join(self, parts: Parts) -> PyTree:
        """Returns the pytree of such leaves; the inverse of `split`."""
        rest = {name: iter(leaves) for name, leaves in parts._asdict().items()}
        return self.structure.unflatten([next(rest[name]) for name in self.groups])


def lay_out(tree: PyTree, heads: Mask | None = None) -> Layout:
    """Finds the group of each leaf.

    Args:
      tree: parameters, or gradients of the same structure.
      heads: a pytree of booleans like the parameters, or a prefix of it, True for those of heads;
        or a function tree -> such a pytree. None if the tasks share all parameters.

    Raises:
      ValueError: for a mask of another structure or with other leaves, or that leaves no shared
        parameter.
    """
    leaves, structure = jax.tree.flatten(tree)
    marks = [False] * len(leaves) if heads is None else _marks(tree, heads)
    groups = tuple(
        "fixed" if has_no_gradient(leaf) else "heads" if mark else "shared"
        for leaf, mark in zip(leaves, marks, strict=True)
    )
    if "heads" in groups and "shared" not in groups:
        raise ValueError("`heads` leaves no parameter that the tasks share: all are True")
    return Layout(structure, groups)


def without_fixed(tree: PyTree) -> PyTree:
    """Returns the pytree with None for leaves that have no gradient."""
    return jax.tree.map(lambda leaf: None if has_no_gradient(leaf) else leaf, tree)


def zeros_for_fixed(leaves: list[Any], *lead: int) -> list[Any]:
    """Returns zeros [*lead, ...] of the leaves' own dtypes, which leave parameters as they are."""
    zeros: list[Any] = []
    for leaf in leaves:
        shape, dtype = (*lead, *jnp.shape(leaf)), getattr(leaf, "dtype", type(leaf))
        # JAX itself can't make arrays of this dtype.
        make = np.zeros if dtype == jax.dtypes.float0 else jnp.zeros
        zeros.append(make(shape, dtype))
    return zeros


def _marks(tree: PyTree, heads: Mask) -> list[bool]:
    wanted = "`heads` must be a pytree of booleans like the parameters, or a function that makes it"
    # A module can be called, too, but is not a leaf.
    if callable(heads) and jax.tree_util.all_leaves([heads]):
        heads = heads(tree)
    for mark in jax.tree.leaves(heads):
        if not isinstance(mark, bool | np.bool_):
            raise ValueError(f"{wanted}; got a leaf {describe(mark)}")
    try:
        return jax.tree.leaves(jax.tree.broadcast(heads, tree))
    except ValueError:
        found, expected = jax.tree.structure(heads), jax.tree.structure(tree)
        raise ValueError(f"{wanted}; got the structure {found} for {expected}") from None
