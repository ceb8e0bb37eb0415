"""Tables and figures from the files of runs.

The runs (`read`) form groups that differ in nothing but the seed (`grouping`, `baseline`), whose
labels name the settings in which they differ (`wording`) and whose results are rows (`rows`,
`spread`). The rows become tables with notes (`tables`, `notes`), the rest becomes pictures
(`figures`, `comparison`, `few_labels`, `strips`, `errors`, `charts`, `sphere`). Each section of the
page (`sections`) shows a part of them, and `write` saves all files.
"""

from mtl_jax.report.figures import cosines_figure, loss_figure, weights_figure
from mtl_jax.report.strips import strip_figure
from mtl_jax.report.write import write_report

__all__ = ["cosines_figure", "loss_figure", "strip_figure", "weights_figure", "write_report"]
