"""One folder with a trained network, which works without mtl_jax and without the run."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from mtl_jax import files
from mtl_jax.deploy import onnx_file, program, weights
from mtl_jax.deploy.card import card
from mtl_jax.deploy.origin import Origin
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.runs import settings, workdir
from mtl_jax.version import __version__

DESCRIPTION, WEIGHTS, ONNX = "model.json", "weights.safetensors", "model.onnx"
# Version of the description, raised with each change that older versions can't read.
FORMAT = 1
# Files of an export: an earlier one is replaced only if its folder holds nothing else.
OWN = {DESCRIPTION, WEIGHTS, "README.md", "example.py", "model.stablehlo", ONNX}


def check_out(out: Path) -> None:
    """Refuses a folder for an export that holds anything else; writes nothing.

    Raises:
      ValueError: naming `out`.
    """
    files.check_writable("`out`", out)
    if out.suffix == ".safetensors":
        raise ValueError(
            f"`out`={out}: an export is a folder; the weights are its file {WEIGHTS}: give a name "
            "without .safetensors"
        )
    foreign = sorted({path.name for path in out.glob("*")} - OWN) if out.exists() else []
    if foreign:
        raise ValueError(
            f"`out`={out} holds files that are no export, such as {foreign[0]}: give another folder"
        )


def export(out: Path, predictor: Predictor, origin: Origin, *, onnx: bool = False) -> list[str]:
    """Writes the folder, or replaces an earlier export, complete or not at all.

    Args:
      out: the folder.
      predictor: predictor with the network.
      origin: origin of the network.
      onnx: whether to write an ONNX file, too, for which jax2onnx must be installed.

    Returns:
      The names of its files.

    Raises:
      ValueError: if the folder holds anything else or can't be written.
    """
    check_out(out)
    contents: dict[str, str | bytes] = {
        "model.stablehlo": program.to_stablehlo(predictor),
        WEIGHTS: save(weights.tensors_of(predictor.variables)),
        DESCRIPTION: workdir.to_json(describe(predictor, origin), indent=1) + "\n",
        "example.py": Path(__file__).with_name("example.py").read_text(encoding="utf-8"),
    }
    if onnx:
        contents[ONNX] = onnx_file.to_onnx(predictor)
    contents["README.md"] = card(predictor, origin, files=contents.keys())
    try:
        _put(out.absolute(), contents)
    except OSError as error:
        raise ValueError(f"`out`={out}: can't be written ({error.strerror})") from error
    return sorted(contents)


def describe(predictor: Predictor, origin: Origin) -> dict[str, Any]:
    """Returns what other programs need to know, and what `mtl_jax.load` needs, as plain JSON."""
    return {
        "format": FORMAT,
        "mtl_jax": __version__,
        "image_size": list(predictor.image_size),
        "channels": predictor.channels,
        "focal_length": predictor.focal_length,
        "class_names": list(predictor.class_names),
        "palette": predictor.palette.tolist(),
        "outputs": {
            name: {
                "type": str(output.dtype),
                "shape": ["batch", *output.shape],
                "unit": predictor.units[name],
            }
            for name, output in program.outputs_of(predictor).items()
        },
        "settings": {
            name: value for name, value in origin.config.items() if name not in settings.FACTS
        },
        "codebook": None if origin.codebook is None else origin.codebook.tolist(),
        "step": origin.step,
        "result": origin.result,
        "versions": origin.versions,
        "licence": origin.licence,
    }


def _put(out: Path, contents: dict[str, str | bytes]) -> None:
    """Makes the folder next to its place, and moves it there when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}-export-"
    for killed in out.parent.glob(f"{prefix}????????"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent) as place:
        new, old = Path(place, "new"), Path(place, "old")
        new.mkdir()
        for name, content in contents.items():
            files.write(new / name, content)
        if out.exists():
            os.rename(out, old)
        os.rename(new, out)
