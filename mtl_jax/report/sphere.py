"""The picture of a codebook of directions."""

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mtl_jax.report.figures import STYLE
from mtl_jax.tasks.codebook import Codebook

POINTS = 20  # per arc of a great circle


@matplotlib.rc_context(STYLE)
def sphere_figure(codebook: Codebook) -> Figure:
    """Draws the codewords in the colours of their normals, and the edges between them.

    Projected with equal areas around the direction to the camera, so directions facing away from it
    are visible, too.
    """
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    points = codebook.codewords.astype(np.float64)
    corners = codebook.corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = np.unique(np.sort(corners, axis=-1), axis=0)
    steps = np.linspace(0, 1, POINTS)[:, None]
    arcs = [project((1 - steps) * points[a] + steps * points[b]) for a, b in edges if a != b]
    axes.add_collection(LineCollection(arcs, colors="#9aa0a8", linewidths=0.8))
    angle = np.linspace(0, 2 * np.pi, 200)
    rim = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)
    axes.plot(*project(rim).T, color="#30343b", linewidth=0.8)
    # x to the right, y up, z towards the viewer, as in the pictures of predictions.
    colours = np.clip((points * [1, -1, -1] + 1) / 2, 0, 1)
    axes.scatter(*project(points).T, c=colours, s=70, edgecolors="#30343b", zorder=3)
    # Edges far behind the camera would make the rest small.
    axes.set(xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), aspect="equal")
    axes.set_axis_off()
    return figure


def project(directions: np.ndarray) -> np.ndarray:
    """Projects directions [n, 3] to [n, 2]: Lambert's equal-area projection around -z, y up."""
    x, y, z = (directions / np.linalg.norm(directions, axis=-1, keepdims=True)).T
    radius = np.sqrt(2.0 / np.maximum(1.0 - z, 1e-9))
    return np.stack([x * radius, -y * radius], axis=-1)
