"""Names of the weightings as the literature prints them."""

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
