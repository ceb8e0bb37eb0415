"""The export of a run's network into a folder of its own."""

from collections.abc import Sequence
from pathlib import Path

from mtl_jax.commands import assembly, loading
from mtl_jax.deploy import export, onnx_file
from mtl_jax.deploy.origin import Origin
from mtl_jax.runs import checkpoint, settings, workdir
from mtl_jax.runs.settings import Settings


def export_run(run: Settings, *, licence: str, limits: Sequence[str]) -> tuple[Path, list[str]]:
    """Writes the folder `out` from the run in the folder `workdir`, with ONNX where that is there.

    Args:
      run: from `settings.of_run`.
      licence: see `Origin`.
      limits: see `Origin`.

    Returns:
      The folder and the names of its files.

    Raises:
      ValueError: if there is no such checkpoint, or the folder can't be written.
    """
    folder = settings.folder_of(run)
    out = Path(run.out or folder / "export").expanduser()
    export.check_out(out)
    predictor = loading.of_run(run)
    codebook = assembly.codebook_of(run)
    best = run.checkpoint == "best"
    with checkpoint.open_checkpoints(folder, best=best, read_only=True) as manager:
        step = checkpoint.chosen(manager, run.checkpoint)
    if not workdir.has_finished(folder, epochs=run.epochs, patience=run.patience):
        print(f"note: the run has not been trained to its end; this is its state at step {step}")
    origin = Origin(
        config=workdir.read_json(folder / "config.json"),
        step=step,
        result=workdir.result_at(folder, step=step),
        versions=workdir.read_if_whole(folder / "versions.json"),
        codebook=None if codebook is None else codebook.codewords,
        samples=workdir.read_samples(folder),
        licence=licence,
        limits=limits,
    )
    return out, export.export(out, predictor, origin, onnx=onnx_file.is_possible())
