"""Multi-task dense prediction in JAX: segmentation, depth and surface normals in one network.

The names below can be imported from here. A package or module is loaded when it is first used, so
`import mtl_jax` costs nothing, and what is not used need not be installed: `weighting` needs jax,
jaxopt and optax, everything else the extra `train`.

    import mtl_jax
    weighting = mtl_jax.weighting.make("nash")
"""

import importlib
from typing import Any

from mtl_jax.version import __version__

# Name -> the module that defines it.
_MODULES = {
    "data": "mtl_jax.data",
    "models": "mtl_jax.models",
    "report": "mtl_jax.report",
    "tasks": "mtl_jax.tasks",
    "training": "mtl_jax.training",
    "weighting": "mtl_jax.weighting",
}
_NAMES = {
    "Metric": "mtl_jax.tasks",
    "Network": "mtl_jax.models",
    "Predictor": "mtl_jax.deploy.predictor",
    "Recipe": "mtl_jax.training.step",
    "Signals": "mtl_jax.weighting",
    "Task": "mtl_jax.tasks",
    "TaskWeights": "mtl_jax.weighting",
    "Weighting": "mtl_jax.weighting",
    "load": "mtl_jax.commands.loading",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES and name not in _NAMES:
        raise AttributeError(f"module 'mtl_jax' has no attribute {name!r}")
    try:
        module = importlib.import_module((_MODULES | _NAMES)[name])
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ModuleNotFoundError(
            f"mtl_jax.{name} needs {package}, which the extra `train` brings: "
            "pip install 'PATH_TO_CLONE[train]'",
            name=error.name,
        ) from error
    return module if name in _MODULES else getattr(module, name)
