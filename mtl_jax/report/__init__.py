"""Tables and figures from the files of runs."""

from mtl_jax.report.figures import cosines_figure, loss_figure, weights_figure
from mtl_jax.report.strips import strip_figure
from mtl_jax.report.write import write_report

__all__ = ["cosines_figure", "loss_figure", "strip_figure", "weights_figure", "write_report"]
