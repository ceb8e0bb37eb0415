"""Checkpoints by orbax: written atomically in the background, the last ones and the best kept.

A finished checkpoint gets a file with the SHA-256 of its parts, which reveals damage when it is
read; orbax itself does not detect a flipped bit.
"""

import contextlib
import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from mtl_jax import parallel
from mtl_jax.runs import workdir
from mtl_jax.weighting.contract import PyTree

CHECKSUMS = "sha256.json"


@contextlib.contextmanager
def open_checkpoints(
    folder: str | os.PathLike, *, keep: int = 1, best: bool = False, read_only: bool = False
) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints of a run's folder; on exit, all are written and have checksums.

    Args:
      folder: folder of the run; checkpoints are in its folder `checkpoints`.
      keep: number of last checkpoints to keep.
      best: whether to keep the one with the highest score, too.
      read_only: whether to leave alone what another process may be writing there; otherwise files
        that killed processes left unfinished are removed.

    Raises:
      ValueError: for a `keep` below one, or if a checkpoint is damaged.
      OSError: if the folder can't be opened, or the last checkpoint can't be written.
    """
    if keep < 1:
        raise ValueError(f"`keep`={keep}: at least the last checkpoint must be kept")
    policies: list[policy.PreservationPolicy] = [policy.LatestN(keep)]
    if best:
        policies.append(
            policy.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        )
    with quiet():
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(policies),
            best_fn=_score if best else None,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        manager = _manager(Path(folder, "checkpoints").absolute(), options)
        try:
            yield manager
            if not read_only:
                wait(manager)
        finally:
            # `wait` has raised this failure; it must not replace another error that is being
            # raised.
            with contextlib.suppress(Exception):
                manager.close()


def _manager(directory: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    """Makes orbax's manager, which reads the scores of all checkpoints at once."""
    try:
        return ocp.CheckpointManager(directory, options=options)
    except OSError as error:
        raise OSError(f"{directory} can't be opened: {error}") from error
    except Exception as error:
        for step in _steps(directory):
            _check_whole(directory / str(step))
        raise ValueError(f"{directory} can't be opened ({_reason(error)})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the thousand lines and more that are printed about errors that are also raised.

    Orbax logs them, and tensorstore reports each abandoned write.
    """
    print_error = sys.excepthook

    def is_news(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def print_news(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            print_error(kind, error, trace)

    logger = logging.getLogger("absl")
    logger.addFilter(is_news)
    sys.excepthook = print_news
    try:
        yield
    finally:
        sys.excepthook = print_error
        logger.removeFilter(is_news)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def save(
    manager: ocp.CheckpointManager, step: int, state: PyTree, *, score: float | None = None
) -> None:
    """Saves a state as that of `step`, unless there is one already.

    It is written in the background, after the previous one is finished.

    Args:
      manager: from `open_checkpoints`.
      step: training step, the checkpoint's name.
      state: a pytree of arrays.
      score: score for the choice of the best checkpoint, higher is better; None without validation.

    Raises:
      OSError: if this one or the one before can't be written.
    """
    wait(manager)
    if step in manager.all_steps():
        return
    metrics = None if score is None else {"score": score}
    state = parallel.across_processes(state)
    with _plain_errors(manager):
        manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until all checkpoints are written, and writes the checksums of new ones.

    Raises:
      OSError: if one can't be written.
    """
    with _plain_errors(manager):
        manager.wait_until_finished()
    if workdir.is_writer():
        for step in manager.all_steps():
            folder = Path(manager.directory, str(step))
            if not (folder / CHECKSUMS).exists():
                workdir.write_json(folder / CHECKSUMS, checksums(folder))


@contextlib.contextmanager
def _plain_errors(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns any error that occurs in writing into one line that names the folder."""
    try:
        yield
    except Exception as error:  # orbax raises many kinds, tensorstore's among them
        raise OSError(
            f"a checkpoint can't be written to {manager.directory}: {_reason(error)}; "
            "earlier ones are kept, and the same command resumes from the last of them"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns an error in one line, in the system's words where the system raised it."""
    text = str(error).strip() or type(error).__name__
    return _of_system(error) or text.splitlines()[0][:200]


def _of_system(error: BaseException) -> str | None:
    """Returns the system's words for an error whose code tensorstore names; None for any other."""
    code = re.search(r"(?:os_error_code='|OS error )(\d+)", str(error))
    return os.strerror(int(code[1])) if code else None


def checksums(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a checkpoint, by its path in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        # A process killed while it wrote the checksums leaves a partial file.
        if path.is_file() and not path.name.startswith(CHECKSUMS):
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return found


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's files; None if they are those that were saved.

    A checkpoint without checksums, as a process killed just after saving leaves it, passes.

    Raises:
      OSError: if they can't be read.
    """
    if not (folder / CHECKSUMS).exists():
        return None
    try:
        saved = workdir.read_json(folder / CHECKSUMS)
    except ValueError as error:
        return str(error)
    if not saved:
        return f"{folder / CHECKSUMS} is empty"
    found = checksums(folder)
    for name, digest in saved.items():
        if name not in found:
            return f"{folder / name} is missing"
        if found[name] != digest:
            return f"{folder / name} is damaged: it has changed since it was saved"
    return None


class Damaged(ValueError):
    """A checkpoint is not as it was saved."""


def _check_whole(folder: Path) -> None:
    """Raises `Damaged` if a checkpoint is not as it was saved, and says what to do."""
    fault = damage(folder)
    if fault is not None:
        _check_there(folder)
        raise Damaged(f"the checkpoint of step {folder.name}: {fault}; {_advice(folder)}")


def restore(
    manager: ocp.CheckpointManager, like: PyTree, *, which: str = "latest", part: bool = False
) -> PyTree:
    """Returns a saved state.

    Args:
      manager: from `open_checkpoints`, with `best` for the best checkpoint.
      like: a state of the same structure, shapes and dtypes. The restored one lies on the same
        devices as this one, even if it was saved from others.
      which: "latest", "best" or the number of a step.
      part: whether `like` holds only some entries of the state, in nested dicts.

    Raises:
      ValueError: if there is no such checkpoint, it is damaged, or it is of another run.
      OSError: if it can't be read.
    """
    step = chosen(manager, which)
    folder = Path(manager.directory, str(step))
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        parallel.across_processes(like),
    )
    try:
        _check_whole(folder)
        state = manager.restore(step, args=_part(manager, step, target) if part else _whole(target))
    except Damaged:
        raise
    except OSError as error:
        _check_there(folder)
        raise OSError(f"{folder} can't be read: {error}") from error
    except Exception as error:  # orbax raises many kinds, tensorstore's among them
        _check_there(folder)
        if _of_system(error):
            raise OSError(f"{folder} can't be read: {_reason(error)}") from error
        hint = "it may be of another version of this program or of orbax (see versions.json)"
        if (folder / CHECKSUMS).exists():
            hint = f"its files are those that were saved: {hint}"
        else:
            hint = f"{hint}, or damaged: then {_advice(folder)}"
        raise ValueError(f"{folder} can't be read ({_reason(error)}): {hint}") from error
    if jax.process_count() == 1:
        return state
    return jax.tree.map(lambda x, y: jax.device_put(np.asarray(x), y.sharding), state, like)


def _whole(target: PyTree) -> ocp.args.CheckpointArgs:
    return ocp.args.StandardRestore(target)


def _part(
    manager: ocp.CheckpointManager, step: int, target: dict[str, PyTree]
) -> ocp.args.CheckpointArgs:
    """Returns what restores some entries of a state, all of which the checkpoint must have.

    Raises:
      ValueError: if it lacks one or has it in another shape, for which orbax would give zeros.
    """
    saved = dict(jax.tree_util.tree_leaves_with_path(_metadata(manager, step)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(target):
        if path not in saved or tuple(saved[path].shape) != leaf.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"it has no {name} of the shape {leaf.shape}")
    return ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )


def saved_names(manager: ocp.CheckpointManager, entry: str, *, which: str) -> list[str]:
    """Returns the names in a dict of a saved state.

    Args:
      manager: from `open_checkpoints`.
      entry: entry of the state, a dict of arrays by name.
      which: see `restore`.

    Returns:
      The names; none if they can't be read, an error that `restore` then raises.
    """
    step = chosen(manager, which)
    try:
        return list(_metadata(manager, step)[entry])
    except Exception:  # orbax raises many kinds
        return []


def _metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the shapes in a checkpoint."""
    folder = manager.directory / str(step) / "default"
    saved: Any = ocp.StandardCheckpointHandler().metadata(folder)
    return getattr(saved, "tree", saved)


def _check_there(folder: Path) -> None:
    """Raises an OSError if a run has removed the checkpoint in the meantime."""
    if not folder.exists():
        raise OSError(
            f"{folder} was removed while it was read: the run that trains there has saved a later "
            "checkpoint; repeat the command"
        )


def chosen(manager: ocp.CheckpointManager, which: str) -> int:
    """Returns the step that `which` stands for; see `restore`."""
    named = {"latest": manager.latest_step(), "best": manager.best_step()}
    step = int(which) if which.isdecimal() else named.get(which)
    steps = sorted(manager.all_steps())
    if step not in steps:
        hint = (
            " (a run with `validation` images keeps its best one, if its errors are finite)"
            if which == "best"
            else ""
        )
        raise ValueError(f"`checkpoint`={which}: {manager.directory} holds the steps {steps}{hint}")
    return step


def _steps(directory: Path) -> list[int]:
    """Returns the steps of all checkpoints in a folder, readable or not."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def _advice(folder: Path) -> str:
    """Returns advice on a broken checkpoint that does not lose any other."""
    others = [step for step in _steps(folder.parent) if str(step) != folder.name]
    if not others:
        return f"put a copy of {folder} back, or move it away to train from the start"
    return (
        f"`checkpoint`={others[-1]} evaluates another one; to train on from there, move {folder} "
        "away"
    )
