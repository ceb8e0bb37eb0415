"""Heads of the columns of tables, with units and arrows, as the literature prints them."""

from mtl_jax.tasks import Metric

IN_METRES = ("depth/absolute_error", "depth/rmse")


def head(metric: Metric) -> str:
    """Head of a column: its label, unit and an arrow towards the better values."""
    return f"{metric.label} {unit(metric)} {arrow(metric)}".replace("  ", " ")


def unit(metric: Metric) -> str:
    """Unit of a column's numbers; empty for a ratio, and for degrees, which its label has."""
    return "m" if metric.name in IN_METRES else "%" if metric.percent else ""


def arrow(metric: Metric) -> str:
    """The direction in which a column's numbers improve."""
    return "↑" if metric.higher_is_better else "↓"
