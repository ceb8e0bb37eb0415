"""The methods, one file each, named as on the command line."""

from collections.abc import Callable

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.methods.aligned_mtl import aligned_mtl
from mtl_jax.weighting.methods.cagrad import cagrad
from mtl_jax.weighting.methods.config import config
from mtl_jax.weighting.methods.cr_mogm import cr_mogm
from mtl_jax.weighting.methods.db_mtl import db_mtl
from mtl_jax.weighting.methods.dualproj import dualproj
from mtl_jax.weighting.methods.dwa import dwa
from mtl_jax.weighting.methods.dwa_window import dwa_window
from mtl_jax.weighting.methods.equal import equal
from mtl_jax.weighting.methods.excess_mtl import excess_mtl
from mtl_jax.weighting.methods.fairgrad import fairgrad
from mtl_jax.weighting.methods.famo import famo
from mtl_jax.weighting.methods.fixed import fixed
from mtl_jax.weighting.methods.gls import gls
from mtl_jax.weighting.methods.go4align import go4align
from mtl_jax.weighting.methods.graddrop import graddrop
from mtl_jax.weighting.methods.gradnorm import gradnorm
from mtl_jax.weighting.methods.gradvac import gradvac
from mtl_jax.weighting.methods.igb import igb
from mtl_jax.weighting.methods.imtl import imtl
from mtl_jax.weighting.methods.imtl_g import imtl_g
from mtl_jax.weighting.methods.imtl_l import imtl_l
from mtl_jax.weighting.methods.inverse_norm import inverse_norm
from mtl_jax.weighting.methods.ldc_mtl import ldc_mtl
from mtl_jax.weighting.methods.mgda import mgda
from mtl_jax.weighting.methods.moco import moco
from mtl_jax.weighting.methods.modo import modo
from mtl_jax.weighting.methods.nash import nash
from mtl_jax.weighting.methods.pbi import pbi
from mtl_jax.weighting.methods.pcd import pcd
from mtl_jax.weighting.methods.pcgrad import pcgrad
from mtl_jax.weighting.methods.rlw import rlw
from mtl_jax.weighting.methods.sdmgrad import sdmgrad
from mtl_jax.weighting.methods.si import si
from mtl_jax.weighting.methods.stch import stch
from mtl_jax.weighting.methods.upgrad import upgrad
from mtl_jax.weighting.methods.uw import uw
from mtl_jax.weighting.methods.uw_so import uw_so

# Each method with the name that the literature prints.
_TITLED: dict[Callable[..., Weighting], str] = {
    # by the losses alone
    equal: "Equal weights",
    fixed: "Fixed weights",
    rlw: "RLW",
    si: "Scale-invariant",
    gls: "GLS",
    igb: "IGB",
    go4align: "GO4Align",
    pbi: "PBI",
    stch: "STCH",
    dwa: "DWA",
    dwa_window: "DWA (window)",
    uw: "UW",
    uw_so: "UW-SO",
    imtl_l: "IMTL-L",
    ldc_mtl: "LDC-MTL",
    famo: "FAMO",
    # by the Gram matrix
    nash: "Nash-MTL",
    fairgrad: "FairGrad",
    mgda: "MGDA",
    cagrad: "CAGrad",
    upgrad: "UPGrad",
    dualproj: "DualProj",
    pcd: "PCD",
    inverse_norm: "Inverse norm",
    pcgrad: "PCGrad",
    gradvac: "GradVac",
    imtl_g: "IMTL-G",
    imtl: "IMTL",
    aligned_mtl: "Aligned-MTL",
    config: "ConFIG",
    gradnorm: "GradNorm",
    modo: "MoDo",
    sdmgrad: "SDMGrad",
    cr_mogm: "CR-MOGM",
    # by the gradients themselves
    graddrop: "GradDrop",
    db_mtl: "DB-MTL",
    moco: "MoCo",
    excess_mtl: "ExcessMTL",
}

METHODS = {method.__name__: method for method in _TITLED}
TITLES = {method.__name__: title for method, title in _TITLED.items()}
