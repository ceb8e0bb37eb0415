"""Checks of shapes and dtypes while arguments are traced, at no cost inside jit.

Every message names the argument and says what it is and what it should be.
"""

import operator
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import PyTree, Signals, TaskWeights

Shape = tuple[int, ...]
# Path and shape of each leaf of a pytree.
Leaves = tuple[tuple[str, Shape], ...]
# What JAX accepts as an array without dimensions.
NUMBERS = (bool, int, float, complex)


def check_option(method: str, name: str, value: Any, holds: bool, wanted: str) -> None:
    """Checks an option of a method.

    Args:
      method: name in `METHODS`.
      holds: whether the value is valid.
      wanted: what the value must be, in words.

    Raises:
      ValueError: unless it holds.
    """
    if not holds:
        raise ValueError(f"{method}'s {name} must be {wanted}, got {value!r}")


def check_num_tasks(num_tasks: int) -> int:
    """Returns the number of tasks as a Python int.

    Raises:
      ValueError: unless it is a whole number of at least one.
    """
    try:
        count = operator.index(num_tasks)
    except TypeError:
        raise ValueError(
            f"`num_tasks` must be a whole number, the number of losses; got {describe(num_tasks)}"
        ) from None
    if count < 1:
        raise ValueError(f"a weighting needs at least one task, got num_tasks={count}")
    return count


def check_signals(
    signals: Signals, *, num_tasks: int | None = None, draws: bool = False, crosses: bool = False
) -> Signals:
    """Returns signals as arrays of matching shapes.

    Args:
      signals: the caller's; `losses` may be a list or tuple of K scalars.
      num_tasks: K of the state; None if it is not known.
      draws: whether the method needs `key`.
      crosses: whether the method needs `cross`.

    Raises:
      ValueError: for a signal that is missing or has another shape or dtype than documented.
    """
    if not hasattr(signals, "losses"):
        raise ValueError(f"`signals` must be Signals(losses, gram, step), got {describe(signals)}")
    losses = check_losses(signals.losses, num_tasks=num_tasks)
    count = len(losses)
    square = f"float[{count}, {count}], inner products of the gradients of the {count} `losses`"
    matrices = {}
    for name in ("gram", "cross"):
        matrix = getattr(signals, name)
        if matrix is not None:
            matrices[name] = _array(name, matrix, (count, count), jnp.floating, square)
    if crosses and "cross" not in matrices:
        raise ValueError(
            "`cross` is missing: this weighting compares gradients on two parts of the batch and "
            f"needs Signals(cross=...) of shape {square}"
        )
    labelled = signals.labelled
    if labelled is not None:
        labelled = check_labelled(labelled, count)
    step = _array(
        "step", signals.step, (), jnp.integer, "an integer scalar, the number of the step"
    )
    if draws:
        _check_key(signals.key)
    return signals._replace(losses=losses, labelled=labelled, step=step, **matrices)


def check_losses(losses: Any, *, num_tasks: int | None = None, name: str = "losses") -> jax.Array:
    """Returns the losses as one array float[K].

    Args:
      losses: an array, or a list or tuple of scalars.
      num_tasks: K, if it is known.
      name: of the argument in messages.

    Raises:
      ValueError: for anything else.
    """
    count = "K" if num_tasks is None else num_tasks
    wanted = f"float[{count}], one loss per task and nothing else (no auxiliary output)"
    if num_tasks is not None:
        wanted += f", for num_tasks={num_tasks}"
    losses = _stack(losses, jnp.floating, jnp.float32)
    shape = _shape(losses)
    if shape is None or len(shape) != 1 or shape == (0,):
        raise ValueError(f"`{name}` must be {wanted}; got {describe(losses)}")
    expected = shape if num_tasks is None else (num_tasks,)
    return _array(name, losses, expected, jnp.floating, wanted)


def check_labelled(labelled: Any, num_tasks: int) -> jax.Array:
    """Returns `labelled` as an array bool[K]; raises ValueError for anything else."""
    wanted = f"bool[{num_tasks}], whether the batch has labels of each task, or None"
    labelled = _stack(labelled, jnp.bool_, jnp.bool_)
    return _array("labelled", labelled, (num_tasks,), jnp.bool_, wanted)


def check_weights(weights: Any, num_tasks: int) -> TaskWeights:
    """Returns weights of K tasks; raises ValueError for anything else."""
    if not isinstance(weights, TaskWeights):
        raise ValueError(
            f"`weights` must be TaskWeights(shared, heads), as in the state of combine_tasks; got "
            f"{describe(weights)}"
        )
    for name, values in weights._asdict().items():
        wanted = f"float[{num_tasks}], one for each of the `losses`"
        _array(f"weights.{name}", values, (num_tasks,), jnp.floating, wanted)
    return weights


def check_combined(gradients: PyTree, params: PyTree) -> None:
    """Checks that a pytree is one gradient, of the shapes of the parameters.

    Raises:
      ValueError: for other leaves or shapes.
    """
    leaves = _floating_leaves(gradients, "gradients")
    shapes = dict(check_params(params))
    for path, leaf, shape in leaves:
        if shapes.get(path) != shape:
            raise ValueError(
                "with combined=True `gradients` must be one gradient, like the `params`, as "
                f"`weighted_gradient` returns it; got `gradients{path}` {describe(leaf)}"
            )


def check_gradients(
    gradients: PyTree,
    *,
    num_tasks: int | None = None,
    params: Leaves | None = None,
) -> int:
    """Checks that a pytree holds K gradients, stacked on a leading axis of every leaf.

    Args:
      gradients: pytree of leaves float[K, ...].
      num_tasks: K; by default the length of the first leaf's leading axis.
      params: result of `check_params` for the parameters; None if they are not known.

    Returns:
      K.

    Raises:
      ValueError: for no leaves, or one of another dtype or shape.
    """
    leaves = _floating_leaves(gradients, "gradients")
    paths = [path for path, _, _ in leaves]
    if params is not None and paths != [path for path, _ in params]:
        raise ValueError(
            "`gradients` must be like the `params`, with the leaves "
            f"{_name_all(path for path, _ in params)}; got {_name_all(paths)}"
        )
    for index, (path, leaf, shape) in enumerate(leaves):
        if num_tasks is None and shape:
            num_tasks = shape[0]
        rest = shape[1:] if params is None else params[index][1]
        if shape != (num_tasks, *rest):
            count = "K" if num_tasks is None else num_tasks
            dims = [count, "..."] if params is None else [count, *rest]
            raise ValueError(
                f"`gradients{path}` must be float[{', '.join(map(str, dims))}], the gradients of "
                f"the {count} losses stacked on a leading axis as `task_gradients` returns them; "
                f"got {describe(leaf)}"
            )
    return int(shape[0])


def check_params(params: PyTree) -> Leaves:
    """Returns the paths and shapes of the leaves of a pytree of parameters.

    Raises:
      ValueError: for no leaves, or one that is not a floating-point array.
    """
    return tuple((path, shape) for path, _, shape in _floating_leaves(params, "params"))


def check_state(state: PyTree, expected: PyTree, num_tasks: int) -> None:
    """Checks that a state has the form that `init` gives for this number of tasks.

    Args:
      state: the caller's.
      expected: a pytree of the shapes that `init(num_tasks, ...)` gives.
      num_tasks: K of the signals.

    Raises:
      ValueError: for another structure or other shapes.
    """
    advice = (
        f"`state` must be what this weighting's `init` made for the {num_tasks} tasks of `losses` "
        "and these parameters"
    )
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(f"{advice}; got {describe(state)}, a state of another structure")
    wanted = jax.tree.leaves(expected)
    for (path, leaf), like in zip(_leaves(state), wanted, strict=True):
        if _shape(leaf) != like.shape:
            raise ValueError(f"{advice}: `state{path}` is {describe(leaf)}, not {describe(like)}")


def has_no_gradient(leaf: Any) -> bool:
    """Returns whether it holds integers or booleans, or has JAX's dtype for their gradients."""
    if getattr(leaf, "dtype", None) == jax.dtypes.float0:
        return True
    return _is(leaf, jnp.integer) or _is(leaf, jnp.bool_)


def describe(value: Any) -> str:
    """Describes a value: `float32[3, 2]`, `list of float32[], dict`, `str 'nash'`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{dtype}[{', '.join(map(str, shape))}]"
    if type(value) in (list, tuple):
        return f"{type(value).__name__} of {', '.join(map(describe, value)) or 'nothing'}"
    if isinstance(value, (str, *NUMBERS)):
        return f"{type(value).__name__} {value!r}"
    return "None" if value is None else f"{type(value).__name__}"


def _array(name: str, value: Any, shape: Shape, kind: Any, wanted: str) -> jax.Array:
    if _shape(value) != shape or not _is(value, kind):
        raise ValueError(f"`{name}` must be {wanted}; got {describe(value)}")
    return jnp.asarray(value)


def _stack(values: Any, kind: Any, dtype: Any) -> Any:
    """Turns a list or tuple of scalars of one kind into an array; leaves anything else."""
    if not isinstance(values, list | tuple) or not values:
        return values
    if not all(_shape(value) == () and _is(value, kind) for value in values):
        return values
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def _is(value: Any, kind: Any) -> bool:
    """Returns whether it is an array or a number of this kind, such as `jnp.floating`."""
    numbers = isinstance(value, NUMBERS)
    dtype = jnp.result_type(value) if numbers else getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, kind)


def _shape(value: Any) -> Shape | None:
    """Returns the shape of an array, () for a Python number, None for anything else."""
    shape = () if isinstance(value, NUMBERS) else getattr(value, "shape", None)
    return shape if isinstance(shape, tuple) else None


def _check_key(key: Any) -> None:
    wanted = "one PRNG key such as jax.random.fold_in(jax.random.key(seed), step)"
    if key is None:
        raise ValueError(
            f"`key` is missing: this weighting draws random numbers and needs Signals(key=...), "
            f"{wanted}"
        )
    shape = _shape_of_key(key)
    if shape != ():
        raise ValueError(f"`key` must be {wanted}; got {describe(key)}")


def _shape_of_key(key: Any) -> Shape | None:
    """Returns the shape of an array of keys, () for one key, None for anything else."""
    dtype = getattr(key, "dtype", None)
    if dtype is None:
        return None
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key.shape
    # A key of the old style is an array of its words.
    return key.shape[:-1] if dtype == jnp.uint32 and key.ndim else None


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _name_all(paths: Iterable[str]) -> str:
    """Returns the paths of the leaves as a text, at most five of them."""
    paths = list(paths)
    return ", ".join(path or "(one array)" for path in paths[:5]) + ", ..." * (len(paths) > 5)


def _floating_leaves(tree: PyTree, name: str) -> list[tuple[str, Any, Shape]]:
    """Returns the leaves with their paths and shapes, all floating-point arrays."""
    leaves = _leaves(tree)
    if not leaves:
        raise ValueError(f"`{name}` holds no arrays; got {describe(tree)}")
    found = []
    for path, leaf in leaves:
        shape = _shape(leaf)
        if shape is None or not _is(leaf, jnp.floating):
            raise ValueError(
                f"`{name}{path}` must be a floating-point array, got {describe(leaf)}: only such "
                "leaves have gradients here; keep others (complex numbers, functions) out of the "
                "pytree"
            )
        found.append((path, leaf, shape))
    return found
