"""The Nash bargain as the paper's code solves it, and exactly, both on the CPU."""

import importlib
import warnings
from typing import Any

import numpy as np


class Published:
    """Solver of Navon et al. (2022): up to 20 convex programs, each with a new linearisation.

    A concave part is linearised at the last solution. The Gram matrix is divided by its norm. Each
    solution starts from the last weights, and where a program fails they are kept.

    Args:
      num_tasks: K.
      iterations: of the linearisation.

    Raises:
      ImportError: without cvxpy and ecos.
    """

    def __init__(self, num_tasks: int, iterations: int = 20):
        # Here, because either may be missing: only this class needs them.
        cvxpy, _ = (importlib.import_module(name) for name in ("cvxpy", "ecos"))
        self.last = np.ones(num_tasks, np.float32)
        self.iterations = iterations
        self.weights = cvxpy.Variable(num_tasks, nonneg=True)
        self.start = cvxpy.Parameter(num_tasks, value=self.last)
        self.gram = cvxpy.Parameter((num_tasks, num_tasks), value=np.eye(num_tasks))
        self.norm = cvxpy.Parameter(1, value=np.ones(1))
        slope = 1 / self.start + self.inverse() @ self.gram
        linear = slope @ (self.weights - self.start)
        objective = cvxpy.sum(self.gram @ self.weights) + linear / self.norm
        constraints = [
            -cvxpy.log(self.weights[i] * self.norm) - cvxpy.log(self.gram[i] @ self.weights) <= 0
            for i in range(num_tasks)
        ]
        self.problem = cvxpy.Problem(cvxpy.Minimize(objective), constraints)

    def inverse(self) -> Any:
        """Returns 1 / (G a) at the start, as a cvxpy expression."""
        return 1 / (self.gram @ self.start)

    def solve(self, gram: np.ndarray) -> np.ndarray:
        """Returns the weights [K] of a Gram matrix [K, K]."""
        norm = np.linalg.norm(gram)
        scaled = gram / norm
        self.gram.value, self.norm.value = scaled, np.array([norm])
        last = self.last
        for _ in range(self.iterations):
            self.start.value = last
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.problem.solve(solver="ECOS", warm_start=True, max_iters=100)
            except Exception:  # noqa: BLE001  (as published: any failure keeps the last weights)
                self.weights.value = last
            found = self.weights.value
            if (
                found is None
                or np.linalg.norm(scaled @ last - 1 / (last + 1e-10)) < 1e-3
                or np.linalg.norm(found - last) < 1e-6
            ):
                break
            last = found
        self.last = last
        return last


def exact(gram: np.ndarray) -> np.ndarray:
    """Solves the bargain in float64 by damped Newton steps, which take microseconds."""
    weights = 1 / np.sqrt(np.diagonal(gram))
    for _ in range(100):
        gradient = gram @ weights - 1 / weights
        step = np.linalg.solve(gram + np.diag(1 / weights**2), gradient)
        decrement = np.sqrt(max(gradient @ step, 0.0))
        weights = weights - step / (1 + decrement)
        if decrement < 1e-9:
            break
    return weights
