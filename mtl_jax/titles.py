"""Names of the weightings, and units of the columns, as the literature prints them."""

from mtl_jax.tasks import Metric

TITLES = {
    "equal": "Equal weights", "fixed": "Fixed weights", "rlw": "RLW", "si": "Scale-invariant",
    "gls": "GLS", "pbi": "PBI", "stch": "STCH", "dwa": "DWA", "dwa_window": "DWA (window)",
    "uw": "UW", "imtl_l": "IMTL-L", "famo": "FAMO", "nash": "Nash-MTL", "fairgrad": "FairGrad",
    "mgda": "MGDA", "cagrad": "CAGrad", "upgrad": "UPGrad", "dualproj": "DualProj",
    "pcgrad": "PCGrad", "gradvac": "GradVac", "imtl_g": "IMTL-G", "imtl": "IMTL",
    "aligned_mtl": "Aligned-MTL", "config": "ConFIG", "gradnorm": "GradNorm", "modo": "MoDo",
    "sdmgrad": "SDMGrad", "graddrop": "GradDrop", "db_mtl": "DB-MTL", "moco": "MoCo",
    "excess_mtl": "ExcessMTL",
}  # fmt: skip
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
