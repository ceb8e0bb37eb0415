"""Per-task gradients by `jax.vmap` over the tasks, their Gram matrix, and their weighted sum."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_gradients
from mtl_jax.weighting.contract import PyTree

# What `jax.vjp` returns for a function of one argument: cotangent -> (gradient,).
Pullback = Callable[[PyTree], tuple[PyTree]]
# Up to this number of tasks, inner products are faster as sums than as products of long and thin
# matrices. On a CPU the alternative is the products of their blocks.
FEW_TASKS = 6
# Numbers in a block of K rows, 4 MB, of each of the two factors that a CPU multiplies at once.
BLOCK = 2**20
# A CPU joins the leaves of up to this size, such as those of normalisation: fewer sums to compile.
SMALL = 2**14


def pull_back(pullback: Pullback, cotangents: PyTree) -> PyTree:
    """Computes the gradients of K losses that share nothing but the output of one function.

    The caller's `jax.vjp` has made the forward pass; the K backward passes are one `jax.vmap`. On
    CPU they run one after another, because XLA's convolution gradients are slower there for a batch
    K times as large (for a ResNet-18 U-Net and three tasks, the whole step by an eighth).

    Args:
      pullback: pullback of a function of one argument, parameters -> features.
      cotangents: the gradients of the K losses at the features, leaves [K, ...].

    Returns:
      A pytree like the parameters, its leaves [K, ...].
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(pullback)(cotangents)[0]
    count = len(jax.tree.leaves(cotangents)[0])
    each = [pullback(jax.tree.map(lambda x, k=k: x[k], cotangents))[0] for k in range(count)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *each)


def gram(gradients: PyTree) -> jax.Array:
    """Returns the Gram matrix f32[K, K] of K gradients, their inner products.

    Args:
      gradients: pytree of leaves [K, ...].

    Raises:
      ValueError: while it is traced, for gradients that are not stacked, or not of floating-point
        numbers.
    """
    check_gradients(gradients)
    return inner_products(gradients, gradients)


def inner_products(first: PyTree, second: PyTree) -> jax.Array:
    """Returns the inner products f32[K, K] of K gradients with K others.

    Args:
      first: pytree of leaves [K, ...], one gradient per row of the result.
      second: the same, one gradient per column.
    """

    on_cpu = jax.default_backend() == "cpu"

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        count = x.shape[0]
        if count > FEW_TASKS:
            if on_cpu:
                return products_by_blocks(x, y, first is second)
            return _products(*(z.reshape(count, -1).astype(jnp.float32) for z in (x, y)))
        x, y = (z.astype(jnp.float32) for z in (x, y))
        return products_of_pairs(x, y, first is second) if on_cpu else products_in_one_pass(x, y)

    pairs = list(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    if on_cpu:
        pairs = small_joined(pairs)
    return sum((leaf(x, y) for x, y in pairs), jnp.zeros((), jnp.float32))


def small_joined(
    pairs: Sequence[tuple[jax.Array, jax.Array]],
) -> list[tuple[jax.Array, jax.Array]]:
    """Returns pairs of leaves [K, ...] with one of f32[K, n] in place of all small ones."""
    small = [pair for pair in pairs if pair[0][0].size <= SMALL]
    large = [pair for pair in pairs if pair[0][0].size > SMALL]
    if not small:
        return large
    first, second = (
        jnp.concatenate([x.reshape(len(x), -1).astype(jnp.float32) for x in leaves], axis=1)
        for leaves in zip(*small, strict=True)
    )
    return [*large, (first, second)]


def products_of_pairs(x: jax.Array, y: jax.Array, symmetric: bool) -> jax.Array:
    """Returns the inner products f32[K, K] of the rows of x and y, f32[K, ...], for a CPU.

    Each is a sum of its own, which reads the gradients where they are. For one sum over all pairs,
    XLA copies them first.
    """

    def product(i: int, j: int) -> jax.Array:
        # XLA computes the same expression once.
        i, j = (min(i, j), max(i, j)) if symmetric else (i, j)
        return jnp.sum(x[i] * y[j])

    each = range(len(x))
    return jnp.stack([jnp.stack([product(i, j) for j in each]) for i in each])


def products_by_blocks(x: jax.Array, y: jax.Array, symmetric: bool) -> jax.Array:
    """Returns the inner products f32[K, K] of the rows of x and y, [K, ...], for a CPU.

    A block of each row is copied into a core's cache. As one product of such long and thin
    matrices, XLA takes five to twenty times as long.
    """
    count = len(x)
    # Row by row, which spares a copy of all gradients.
    factors = (x,) if symmetric else (x, y)
    rows = [[each.reshape(-1).astype(jnp.float32) for each in z] for z in factors]
    length = len(rows[0][0])
    width = max(1, BLOCK // max(1, count))
    whole = length // width

    def products(start: int | jax.Array, size: int) -> jax.Array:
        parts = [
            jnp.stack([jax.lax.dynamic_slice_in_dim(row, start, size) for row in each])
            for each in rows
        ]
        return _products(parts[0], parts[-1])

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + products(i * width, width)

    rest = products(whole * width, length - whole * width)
    return jax.lax.fori_loop(0, whole, add, rest) if whole else rest


def _products(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def products_in_one_pass(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the inner products f32[K, K] of the rows of x and y, f32[K, ...].

    All sums are one reduction, so that a GPU reads x and y once each: written as a sum over
    products [K, K, ...] every row is read 2 K times.
    """
    count = len(x)
    terms = [x[i] * y[j] for i in range(count) for j in range(count)]
    zeros = [jnp.zeros((), jnp.float32)] * len(terms)

    def add(left: list[jax.Array], right: list[jax.Array]) -> list[jax.Array]:
        return [a + b for a, b in zip(left, right, strict=True)]

    sums = jax.lax.reduce(terms, zeros, add, tuple(range(x.ndim - 1)))
    return jnp.stack(sums).reshape(count, count)


def combine(gradients: PyTree, weights: jax.Array) -> PyTree:
    """Returns the sum of K gradients, each times its weight.

    Args:
      gradients: pytree of leaves [K, ...].
      weights: f32[K].

    Returns:
      A pytree of leaves [...]. A weight of 0 does not hide an entry that is not finite: `select`
      does.

    Raises:
      ValueError: while it is traced, for leaves that are not the gradients of as many tasks.
    """
    check_gradients(gradients, num_tasks=len(weights))

    def leaf(x: jax.Array) -> jax.Array:
        # Term by term, which XLA fuses: as a product of a vector and a matrix it takes twice as
        # long, and GPUs would round the gradients to ten bits.
        terms = [weight * each.astype(jnp.float32) for weight, each in zip(weights, x, strict=True)]
        return sum(terms, jnp.zeros((), jnp.float32)).astype(x.dtype)

    return jax.tree.map(leaf, gradients)


def select(gradients: PyTree, present: jax.Array) -> PyTree:
    """Replaces the gradients of absent tasks by zeros.

    Args:
      gradients: pytree of leaves [K, ...].
      present: bool[K].
    """

    def leaf(x: jax.Array) -> jax.Array:
        return jnp.where(per_task(present, x), x, jnp.zeros_like(x))

    return jax.tree.map(leaf, gradients)


def scale(gradient: PyTree, weight: jax.Array) -> PyTree:
    """Returns one gradient times a weight f32[]."""
    return jax.tree.map(lambda x: weight.astype(x.dtype) * x, gradient)


def per_task(values: jax.Array, leaf: jax.Array) -> jax.Array:
    """Returns values [K] in a shape that multiplies a leaf [K, ...]."""
    return values.reshape(-1, *[1] * (leaf.ndim - 1))


def all_finite(tree: PyTree) -> jax.Array:
    """Returns whether every entry of every leaf is finite, bool[]."""
    # One reduction per leaf, which XLA compiles much faster than a test of every entry.
    leaves = [x for x in jax.tree.leaves(tree) if x.size and jnp.issubdtype(x.dtype, jnp.floating)]
    if not leaves:
        return jnp.array(True)
    largest = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in leaves]
    return jnp.all(jnp.isfinite(jnp.stack(largest)))
