"""Task weightings: how much each task's gradient counts in a step.

Every method is a factory of a `Weighting`, a pair of pure functions `init` and `update` that run
inside the jitted step (`contract.py`). This package imports nothing else of mtl_jax: it serves
any model and any losses.

    weighting = METHODS["nash"](max_norm=1.0)
    state = weighting.init(num_tasks)
    weights, state, diagnostics = weighting.update(Signals(losses, gram, step), state)

`METHODS` has them all. A new method is one function, made a `Weighting` by `by_losses` or
`by_total` (from the losses), by `by_gram` (from the gradients' Gram matrix) or by `by_gradients`
(from the gradients themselves). Left out is what is bilevel and trains on gradients of gradients
(Auto-Lambda, MOML, FORUM), and COSMOS, whose network is told the preference.
"""

from mtl_jax.weighting.contract import Signals, TaskWeights, Weighting
from mtl_jax.weighting.from_gradients import by_gradients, db_mtl, excess_mtl, graddrop, moco
from mtl_jax.weighting.from_gram import GramState, by_gram
from mtl_jax.weighting.from_losses import by_losses, by_total
from mtl_jax.weighting.methods.aligned_mtl import aligned_mtl, config
from mtl_jax.weighting.methods.cagrad import cagrad
from mtl_jax.weighting.methods.pcgrad import gradvac, pcgrad
from mtl_jax.weighting.methods.upgrad import dualproj, upgrad
from mtl_jax.weighting.methods.dwa import dwa, dwa_window
from mtl_jax.weighting.methods.equal import equal
from mtl_jax.weighting.methods.fairgrad import fairgrad
from mtl_jax.weighting.methods.famo import famo
from mtl_jax.weighting.methods.fixed import fixed, rlw
from mtl_jax.weighting.methods.gradnorm import gradnorm
from mtl_jax.weighting.methods.imtl_g import imtl, imtl_g
from mtl_jax.weighting.methods.imtl_l import imtl_l
from mtl_jax.weighting.methods.mgda import mgda
from mtl_jax.weighting.methods.nash import nash
from mtl_jax.weighting.methods.pbi import gls, pbi, si
from mtl_jax.weighting.methods.stch import stch
from mtl_jax.weighting.methods.sdmgrad import modo, sdmgrad
from mtl_jax.weighting.methods.uw import UncertaintyState, uw

METHODS = {
    # by the losses alone
    "equal": equal,
    "fixed": fixed,
    "rlw": rlw,
    "si": si,
    "gls": gls,
    "pbi": pbi,
    "stch": stch,
    "dwa": dwa,
    "dwa_window": dwa_window,
    "uw": uw,
    "imtl_l": imtl_l,
    "famo": famo,
    # by the Gram matrix
    "nash": nash,
    "fairgrad": fairgrad,
    "mgda": mgda,
    "cagrad": cagrad,
    "upgrad": upgrad,
    "dualproj": dualproj,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "imtl_g": imtl_g,
    "imtl": imtl,
    "aligned_mtl": aligned_mtl,
    "config": config,
    "gradnorm": gradnorm,
    "modo": modo,
    "sdmgrad": sdmgrad,
    # in gradient space
    "graddrop": graddrop,
    "db_mtl": db_mtl,
    "moco": moco,
    "excess_mtl": excess_mtl,
}

__all__ = [
    "METHODS",
    "GramState",
    "Signals",
    "TaskWeights",
    "UncertaintyState",
    "Weighting",
    "aligned_mtl",
    "by_gradients",
    "by_gram",
    "by_losses",
    "by_total",
    "cagrad",
    "config",
    "db_mtl",
    "dualproj",
    "dwa",
    "dwa_window",
    "equal",
    "excess_mtl",
    "fairgrad",
    "famo",
    "fixed",
    "gls",
    "graddrop",
    "gradnorm",
    "gradvac",
    "imtl",
    "imtl_g",
    "imtl_l",
    "mgda",
    "moco",
    "modo",
    "nash",
    "pbi",
    "pcgrad",
    "rlw",
    "sdmgrad",
    "si",
    "stch",
    "upgrad",
    "uw",
]
