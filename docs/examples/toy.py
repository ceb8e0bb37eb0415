"""Descends on two losses of two parameters from five starts with twelve weightings.

python docs/examples/toy.py                # prints how many paths end on the Pareto front
python docs/examples/toy.py docs/toy.png   # draws the paths, too, which needs matplotlib

The problem is the field's classic: Liu et al., "Conflict-Averse Gradient Descent", NeurIPS 2021,
with the first loss multiplied by 0.1, as in Navon et al., "Multi-Task Learning as a Bargaining
Game", ICML 2022.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax.weighting import TITLES, combine_tasks, task_gradients

SHOWN = (
    *("equal", "mgda", "pcgrad", "graddrop", "gradvac", "cagrad"),
    *("imtl_g", "nash", "fairgrad", "upgrad", "aligned_mtl", "config"),
)
STARTS = jnp.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]])
STEPS = 35_000
EVERY = 50


def losses_of(x: jax.Array) -> jax.Array:
    """Returns the two losses f32[2] at x f32[2]."""
    a, b = x
    slopes = jnp.array([0.5 * (-a - 7) + jnp.tanh(b), 0.5 * (-a + 3) - jnp.tanh(b) + 2])
    valleys = jnp.log(jnp.maximum(jnp.abs(slopes), 5e-6)) + 6
    bowls = (jnp.array([(a - 7) ** 2, (a + 7) ** 2]) + 0.1 * (b + 8) ** 2) / 10 - 20
    upper, lower = jnp.maximum(jnp.tanh(0.5 * b), 0), jnp.maximum(jnp.tanh(-0.5 * b), 0)
    return jnp.array([0.1, 1.0]) * (upper * valleys + lower * bowls)


def descend(method: str) -> np.ndarray:
    """Returns the losses f32[starts, points, 2] on the paths of Adam at a learning rate of 1e-3."""
    tx = optax.chain(combine_tasks(method, num_tasks=2), optax.adam(1e-3))

    def step(_: int, carry: tuple) -> tuple:
        x, state = carry
        losses, gradients = task_gradients(losses_of, x)
        updates, state = tx.update(gradients, state, x, losses=losses)
        return optax.apply_updates(x, updates), state

    def point(carry: tuple, _: None) -> tuple:
        return jax.lax.fori_loop(0, EVERY, step, carry), losses_of(carry[0])

    def way(x: jax.Array) -> jax.Array:
        last, losses = jax.lax.scan(point, (x, tx.init(x)), length=STEPS // EVERY)
        return jnp.concatenate([losses, losses_of(last[0])[None]])

    return np.asarray(jax.jit(jax.vmap(way))(STARTS))


def front() -> np.ndarray:
    """Returns points f32[n, 2] of the Pareto front, which is convex: minima of weighted sums."""
    a, b = jnp.meshgrid(jnp.linspace(-8, 8, 801), jnp.linspace(-10, -6, 201))
    losses = jax.vmap(losses_of)(jnp.stack([a.ravel(), b.ravel()], axis=1))
    scaled = losses / jnp.array([0.1, 1.0])
    best = [jnp.argmin(scaled @ jnp.array([w, 1 - w])) for w in np.linspace(0, 1, 201)]
    return np.asarray(losses)[np.array(best)]


def on_front(way: np.ndarray, best: np.ndarray) -> int:
    """Returns how many of the paths f32[starts, points, 2] end on the front."""
    gaps = np.linalg.norm((way[:, -1, None] - best) / [0.1, 1.0], axis=-1).min(axis=-1)
    return int((gaps < 0.1).sum())


def draw(ways: dict[str, np.ndarray], best: np.ndarray) -> Any:
    """Draws one panel per method with its paths through the plane of the losses."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels = figure.subplots(2, len(ways) // 2, sharex=True, sharey=True)
    for axes, (method, way) in zip(panels.flat, ways.items(), strict=True):
        axes.plot(*best.T, color="#9aa0a8", linewidth=5, solid_capstyle="round")
        for points in way:
            segments = np.stack([points[:-1], points[1:]], axis=1)
            lines = LineCollection(list(segments), cmap="plasma", linewidths=1.6)
            lines.set_array(np.linspace(0, 1, len(segments)))
            axes.add_collection(lines)
        axes.plot(*way[:, 0].T, "o", color="#30343b", markersize=4)
        axes.plot(*way[:, -1].T, "*", color="#c43c4e", markersize=11, markeredgecolor="white")
        axes.set_title(TITLES[method], fontsize=10, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("first loss (times 0.1)", fontsize=9)
    figure.supylabel("second loss", fontsize=9)
    return figure


if __name__ == "__main__":
    best = front()
    ways = {method: descend(method) for method in SHOWN}
    for method, way in ways.items():
        print(f"{method:12} {on_front(way, best)} of {len(way)} end on the front")
    if len(sys.argv) > 1:
        draw(ways, best).savefig(sys.argv[1], dpi=110)
