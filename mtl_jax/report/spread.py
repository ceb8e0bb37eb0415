"""Mean and standard error over the seeds of a group, and when a difference counts."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and its standard error, s / sqrt(n) with n - 1 in s; None for one value."""
    if not values:
        return math.nan, None
    # A run that diverged may have left infinite values.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(np.mean(values))
        error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return mean, error


def is_ahead(first: Sequence[float], second: Sequence[float]) -> bool:
    """Returns whether two means are further apart than the standard error of their difference.

    A single value has no known error and adds none.
    """
    (one, error), (other, other_error) = mean_and_error(first), mean_and_error(second)
    return abs(one - other) > math.hypot(error or 0.0, other_error or 0.0)
