"""The scripts of docs/, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def load(name: str) -> ModuleType:
    """Returns a script by its path within docs/, such as "examples/toy"; it is run anew."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(name).name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
