"""What the gradients of some steps say about a weighting: would the tasks gain from one?"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np

# Gradients whose lengths differ by less than this factor are of one size.
SIMILAR = 2.0
# A mean cosine is a conflict if it is below this and more than two standard errors below zero.
CONFLICT = -0.05
# If the sum opposes a task in more than this share of the steps, a method may be worth its cost.
OPPOSED = 0.1
# Neighbouring steps resemble each other, so errors come from the means of this many blocks.
BLOCKS = 10

REMEDY = (
    "Methods whose direction conflicts with no task, such as `upgrad` or `nash`, avoid that, for K "
    "backward passes."
)
CAVEATS = (
    "What this can't tell: these are gradients of single batches, whose noise hides part of the "
    "agreement and of the conflict, and a cosine near zero has either sign by chance. They belong "
    "to this stage of training. Gradients may conflict without harm to the metrics: only runs of "
    "several methods and seeds show what a method gains."
)


class Diagnosis(NamedTuple):
    """What the gradients of some steps show; `print` it for tables and what they suggest.

    Steps in which a task has no gradient, or one that is not finite, are left out of that task's
    numbers.

    Attributes:
      names: of the K tasks.
      steps: number of steps.
      missing: i64[K], number of these steps in which the task had no finite gradient, or one of
        zero.
      norms: f64[K], geometric mean of the lengths of the gradients.
      relative_norms: f64[K], the same for the lengths divided by the losses; None without losses,
        or if some are not positive.
      shares: f64[K], part of each task in the sum of the gradients, g_i . d / |d|^2 with the sum d,
        of all steps together. They add up to one; a negative share means that the others outweigh
        the task. NaN if the sum is zero.
      opposed: f64[K], share of the steps in which the sum opposes the task, g_i . d < 0.
      opposed_scaled: f64[K], the same if constant weights brought all gradients to one length.
      cosines: f64[K, K], mean cosines between the gradients.
      errors: f64[K, K], their standard errors; NaN below 20 steps.
      conflicts: f64[K, K], share of the steps with a negative cosine.
    """

    names: tuple[str, ...]
    steps: int
    missing: np.ndarray
    norms: np.ndarray
    relative_norms: np.ndarray | None
    shares: np.ndarray
    opposed: np.ndarray
    opposed_scaled: np.ndarray
    cosines: np.ndarray
    errors: np.ndarray
    conflicts: np.ndarray

    def __str__(self) -> str:
        """Returns the tables and suggestions in Markdown."""
        left_out = _left_out(self)
        return "\n\n".join([_tasks_table(self), _pairs_table(self), *left_out, *advice(self)])


def diagnose(
    grams: Sequence[jax.Array] | jax.Array | np.ndarray,
    losses: Sequence[jax.Array] | jax.Array | np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Diagnosis:
    """Makes a diagnosis from the Gram matrices of some steps.

    >>> import jax.numpy as jnp
    >>> from mtl_jax.weighting import gram, task_gradients
    >>> def losses_of(x):
    ...     return jnp.stack([jnp.sum((x - 1) ** 2), 1000 * jnp.sum((x + 1) ** 2)])
    >>> x, grams = jnp.array([3.0, 2.0]), []
    >>> for _ in range(20):  # steps of your training, each on a batch
    ...     losses, gradients = task_gradients(losses_of, x)
    ...     grams.append(gram(gradients))
    ...     x = x - 1e-6 * gradients.sum(0)
    >>> print(diagnose(grams, names=["small", "large"]).shares.round(3))
    [0. 1.]

    Args:
      grams: f32[steps, K, K], see `gram`. It is best to train with the sum of the losses meanwhile,
        the baseline that a method would replace. A task without a gradient in a step, such as one
        without labels in the batch, has zeros or NaN there.
      losses: f32[steps, K], to see whether dividing by them would bring the gradients to one size.
      names: of the tasks; by default "task 1" and so on.

    Raises:
      ValueError: for arrays of other shapes, another number of names than tasks, or a task that has
        a finite gradient other than zero in no step.
    """
    products = np.asarray(grams, np.float64)
    if products.ndim != 3 or products.shape[1] != products.shape[2]:
        raise ValueError(f"`grams` must have the shape [steps, K, K], got {products.shape}")
    count = products.shape[1]
    names = tuple(names or (f"task {i + 1}" for i in range(count)))
    if len(names) != count:
        raise ValueError(f"`names` must have one name for each of the {count} tasks, got {names}")
    squares = np.diagonal(products, axis1=1, axis2=2)
    present = np.isfinite(squares) & (squares > 0)
    if not present.any(0).all():
        missing = ", ".join(np.array(names)[~present.any(0)])
        raise ValueError(
            f"`grams` has no finite gradient other than zero for {missing}: take more steps, or "
            "leave out such a task"
        )
    both = present[:, :, None] & present[:, None]
    products = np.where(both, products, 0.0)
    norms = np.sqrt(np.where(present, squares, 1.0))
    typical = _geometric_mean(norms, present)
    cosines = np.where(both, products / (norms[:, :, None] * norms[:, None]), np.nan)
    # Inner products of each gradient with the sum.
    plain, scaled = products.sum(2), (products / typical).sum(2)
    return Diagnosis(
        names=names,
        steps=len(present),
        missing=(~present).sum(0),
        norms=typical,
        relative_norms=_relative(norms, losses, present),
        shares=plain.sum(0) / (plain.sum() or np.nan),
        opposed=(plain < 0).sum(0) / present.sum(0),
        opposed_scaled=(scaled < 0).sum(0) / present.sum(0),
        cosines=_mean(cosines),
        errors=_standard_error(cosines),
        conflicts=_mean(np.where(both, cosines < 0, np.nan)),
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns means over the first axis without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def _geometric_mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.exp(_mean(np.where(present, np.log(values), np.nan)))


def _relative(
    norms: np.ndarray,
    losses: Sequence[jax.Array] | jax.Array | np.ndarray | None,
    present: np.ndarray,
) -> np.ndarray | None:
    if losses is None:
        return None
    values = np.asarray(losses, np.float64)
    if values.shape != norms.shape:
        raise ValueError(f"`losses` must have the shape {norms.shape}, got {values.shape}")
    if np.any(present & ~(values > 0)):
        return None
    return _geometric_mean(norms / np.where(present, values, 1.0), present)


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Returns standard errors of the means over the first axis, by the means of blocks."""
    if len(values) < 2 * BLOCKS:
        return np.full(values.shape[1:], np.nan)
    means = np.stack([_mean(block) for block in np.array_split(values, BLOCKS)])
    known = np.isfinite(means).sum(0)
    spread = _mean((means - _mean(means)) ** 2)
    return np.where(known > 1, np.sqrt(spread / np.maximum(known - 1, 1)), np.nan)


def advice(diagnosis: Diagnosis) -> list[str]:
    """Returns what a diagnosis suggests, paragraph by paragraph, and what it can't tell."""
    differ = diagnosis.norms.max() / diagnosis.norms.min() >= SIMILAR
    opposed = _often(diagnosis.names, diagnosis.opposed)
    found = [*(_about_sizes(diagnosis) if differ else ())]
    if opposed:
        found.append(f"**The sum opposes a task**: {opposed} of the steps.")
    if opposed and differ:
        found.append(_about_scaled(diagnosis))
    elif opposed:
        found.append(f"The gradients are of similar size, so this is a conflict. {REMEDY}")
    if pairs := _conflicting(diagnosis):
        found.append(f"**Conflict on average** (mean cosine): {pairs}.")
    if not differ and not opposed:
        found.append(
            f"**{'Little' if pairs else 'Nothing'} here speaks for a method**: the gradients are "
            "of similar size, and their sum seldom opposes a task. Start with `equal`."
        )
    return [*found, CAVEATS]


def _about_sizes(diagnosis: Diagnosis) -> Iterator[str]:
    names, norms, relative = diagnosis.names, diagnosis.norms, diagnosis.relative_norms
    weights = norms.min() / norms
    yield (
        f"**The sizes differ**: the gradient of {names[norms.argmax()]} is "
        f"{norms.max() / norms.min():.1f} times as long as that of {names[norms.argmin()]}, so "
        "that the sum follows the former. Constant weights are the cheapest remedy: "
        f"`fixed:task_weights={'+'.join(f'{weight:.2g}' for weight in weights)}` would have "
        "brought the gradients to one length."
    )
    if relative is None:
        return
    left = relative.max() / relative.min()
    if left < SIMILAR:
        yield (
            f"Divided by the losses, the lengths differ by a factor of {left:.1f}: "
            "methods that balance the losses, such as `si` or `famo`, may be enough, and need one "
            "backward pass."
        )
    else:
        yield (
            f"Divided by the losses, the lengths differ by a factor of {left:.1f}: methods that "
            "balance the losses, such as `si` or `famo`, would leave the gradients at different "
            "sizes; methods by the gradients that work in any unit, such as `nash` or `config`, "
            "depend on them less, for K backward passes."
        )


def _about_scaled(diagnosis: Diagnosis) -> str:
    """Returns whether constant weights would end the opposition to a task."""
    left = _often(diagnosis.names, diagnosis.opposed_scaled)
    if left:
        return f"With gradients of one length it would still be {left}. {REMEDY}"
    return (
        f"With gradients of one length it would be at most {diagnosis.opposed_scaled.max():.0%}: "
        "the sizes are the reason, and balancing them may be enough."
    )


def _often(names: Sequence[str], opposed: np.ndarray) -> str:
    """Returns the tasks that are opposed often, with the share of the steps; "" if none is."""
    return ", ".join(
        f"{name} in {share:.0%}"
        for name, share in zip(names, opposed, strict=True)
        if share > OPPOSED
    )


def _conflicting(diagnosis: Diagnosis) -> str:
    """Returns the pairs that conflict on average, with their mean cosines."""
    # Without a standard error, a mean may be below zero by chance.
    mean, error = diagnosis.cosines, np.nan_to_num(diagnosis.errors, nan=np.inf)
    return ", ".join(
        f"{diagnosis.names[i]} and {diagnosis.names[j]} ({mean[i, j]:.2f})"
        for i, j in combinations(range(len(mean)), 2)
        if mean[i, j] < min(CONFLICT, -2 * error[i, j])
    )


def _tasks_table(diagnosis: Diagnosis) -> str:
    lines = [
        "| task | length of the gradient | length / loss | share of the sum | steps in which the "
        "sum opposes it |",
        "|:--|--:|--:|--:|--:|",
    ]
    for i, name in enumerate(diagnosis.names):
        relative = diagnosis.relative_norms
        lines.append(
            f"| {name} | {diagnosis.norms[i]:.3g} | "
            f"{'–' if relative is None else f'{relative[i]:.3g}'} | "
            f"{_percent(diagnosis.shares[i])} | {_percent(diagnosis.opposed[i])} |"
        )
    return "\n".join(lines)


def _pairs_table(diagnosis: Diagnosis) -> str:
    lines = ["| pair | mean cosine | steps in conflict |", "|:--|--:|--:|"]
    for i, j in combinations(range(len(diagnosis.names)), 2):
        mean, error = diagnosis.cosines[i, j], diagnosis.errors[i, j]
        spread = f" ± {error:.2f}" if np.isfinite(error) else ""
        cosine = f"{mean:.2f}{spread}" if np.isfinite(mean) else "–"
        lines.append(
            f"| {diagnosis.names[i]}, {diagnosis.names[j]} | {cosine} | "
            f"{_percent(diagnosis.conflicts[i, j])} |"
        )
    return "\n".join(lines)


def _left_out(diagnosis: Diagnosis) -> Iterator[str]:
    """Yields a sentence about the steps that are missing in a task's numbers."""
    counts = [
        f"{count} for {name}"
        for name, count in zip(diagnosis.names, diagnosis.missing, strict=True)
        if count
    ]
    if counts:
        yield (
            "Steps in which a task has no finite gradient are left out of its numbers: of "
            f"{diagnosis.steps} steps, {', '.join(counts)}."
        )


def _percent(share: float) -> str:
    """Returns whole percents, never -0; a dash for tasks that never met."""
    return f"{round(100 * share)}%" if np.isfinite(share) else "–"
