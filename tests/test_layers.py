"""The direction of imports: from launch.py through the packages down to the weightings."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From bottom to top. A package imports those of lower layers, and others of its own layer where
# that makes no circle; `weighting` imports nothing from the rest.
LAYERS = (
    {"mtl_jax.weighting"},
    {"mtl_jax.faults", "mtl_jax.files", "mtl_jax.parallel", "mtl_jax.version"},
    {"mtl_jax.tasks"},
    {"mtl_jax.data", "mtl_jax.models", "mtl_jax.runs"},
    {"mtl_jax.training"},
    {"datasets", "mtl_jax.deploy", "mtl_jax.report", "mtl_jax.bench"},
    {"mtl_jax.commands"},
    {"mtl_jax"},
    {"launch"},
)
# Packages and modules that may import what slows down every start or is not always installed.
HEAVY = {
    "jax2onnx": {"mtl_jax.deploy.onnx_file"},
    "onnxruntime": {"mtl_jax.bench"},
    "matplotlib": {"mtl_jax.report", "mtl_jax.bench", "mtl_jax.deploy.view"},
    **dict.fromkeys(("gradio", "fastapi", "uvicorn"), {"mtl_jax.deploy.demo"}),
    "torch": {"mtl_jax.bench", "mtl_jax.models.tensor_files"},
    "torchjd": {"mtl_jax.bench"},
    "cvxpy": {"mtl_jax.bench"},
    "ecos": {"mtl_jax.bench"},
    "OpenEXR": {"datasets.folder.exr"},
    "imageio_ffmpeg": {"mtl_jax.deploy.video"},
    "tensorflow": set(),
    "tensorflow_datasets": {"datasets"},
    "array_record": {"datasets"},
    "pyarrow": {"datasets.waymo.parquet"},
    "tensorboardX": {"mtl_jax.runs.events"},
}


def sources() -> dict[str, Path]:
    """Returns the modules of the project by their dotted names."""
    paths = [*ROOT.glob("mtl_jax/**/*.py"), *ROOT.glob("datasets/**/*.py"), ROOT / "launch.py"]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path) -> Iterator[str]:
    """Yields all dotted names that a file imports, anywhere in it: a.b for `from a import b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "mtl_jax" else ".".join(parts[:2])


def layer(name: str) -> int:
    found = [number for number, packages in enumerate(LAYERS) if name in packages]
    assert found, f"{name} has no place in LAYERS"
    return found[0]


def target(name: str) -> str | None:
    """Returns the module of the project that an imported name is, or lies in."""
    return next((x for x in (name, name.rpartition(".")[0]) if x in SOURCES), None)


SOURCES = sources()


@functools.cache
def within() -> dict[str, set[str]]:
    """Returns the modules of the project that each of its modules imports."""
    return {
        module: {found for name in imports(path) if (found := target(name)) not in (None, module)}
        for module, path in SOURCES.items()
    }


def test_imports_are_found():
    assert "mtl_jax.weighting.contract" in within()["mtl_jax.weighting.rules"]
    assert len(within()["launch"]) >= 3


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module):
    here = package(module)
    for target in within()[module]:
        if package(target) != here:
            assert layer(package(target)) <= layer(here), f"{module} imports {target}"


def test_no_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module not in done:
            for target in within()[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in SOURCES:
        visit(module, ())


def test_nobody_but_the_commands_that_need_them_imports_the_benchmarks():
    for module, targets in within().items():
        if package(module) != "mtl_jax.bench" and module != "mtl_jax.commands.benchmarks":
            assert not any(package(target) == "mtl_jax.bench" for target in targets), module


@pytest.mark.parametrize("module", SOURCES)
def test_flags_and_heavy_packages_stay_in_their_packages(module):
    for name in imports(SOURCES[module]):
        top = name.split(".")[0]
        assert {module, package(module)} & HEAVY.get(top, {module}), f"{module} imports {name}"
        assert not name.startswith(("absl.flags", "absl.app")) or module == "launch", module
