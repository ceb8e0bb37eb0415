"""The training loop: feeds batches, saves, resumes, evaluates, writes down what it measures."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from orbax.checkpoint import CheckpointManager
from tqdm import tqdm

from mtl_jax import data, faults, feed, models, parallel
from mtl_jax.models import pretrained
from mtl_jax.runs import checkpoint, results, workdir
from mtl_jax.tasks import Task
from mtl_jax.training import evaluation
from mtl_jax.training.step import MAX_SKIPPED, StepFunction, TrainState, init_state, make_train_step
from mtl_jax.weighting import Weighting


def train(
    folder: Path,
    splits: dict[str, data.Dataset],
    tasks: Sequence[Task],
    network: models.Network,
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    *,
    epochs: int,
    batch_size: int,
    labelled_per_batch: int | None = None,
    seed: int = 0,
    weighting_every: int = 1,
    gram_of: str = "parameters",
    augment: bool = True,
    jitter: float = 0.0,
    evaluate_every: int = 1,
    evaluation_batch_size: int = 8,
    protocol: str = "pooled",
    keep: int = 1,
    cache: str = "none",
    encoder: Mapping[str, np.ndarray] | None = None,
    accepted: Callable[[], None] = lambda: None,
    devices: Sequence[jax.Device],
) -> dict[str, Any]:
    """Trains from the folder's last checkpoint, or from scratch, to the end; then evaluates.

    Evaluations on the way use the split `validation` where there is one, else `test`; the final
    one uses `test`. A run that was killed goes on as if nothing had happened. When it takes another
    step, the result of its former end is removed.

    Args:
      folder: of the run, owned.
      splits: from `data.open_splits`.
      tasks: to train.
      network: with a head for each task, built with `axis_name=parallel.AXIS`.
      weighting: of the tasks.
      optimizer: over the network's parameters.
      learning_rate: the optimizer's schedule, to write it down.
      epochs: of training.
      batch_size: images a step, over all devices.
      labelled_per_batch: see `data.chosen_at`.
      seed: of initialisation, order and augmentation.
      weighting_every: steps between updates of a weighting that needs the Gram matrix.
      gram_of: see `step.make_train_step`.
      augment: whether to flip, scale and crop.
      jitter: strength of the colour jitter.
      evaluate_every: epochs between evaluations.
      evaluation_batch_size: images a step of evaluation.
      protocol: of the metrics, see `evaluate.evaluate`.
      keep: number of last checkpoints to keep.
      cache: where training images are kept, see `feed.make_feed`; unless "none", those of the other
        splits are kept in host memory.
      encoder: tensors to start the trunk's encoder from, see `pretrained.put_into`.
      accepted: called when the checkpoint is read and right for these `epochs`, before anything of
        the run is written: the place to write down what the run is.
      devices: on which to run.

    Returns:
      What `result.json` holds.

    Raises:
      faults.Stopped: after SIGTERM or Ctrl-C, with the state saved.
      ValueError: if the checkpoint can't be used, with nothing written.
      OSError: if a file can't be written; the last good checkpoint is kept.
      FloatingPointError: when gradients stay non-finite; the last good checkpoint is kept.
    """
    per_epoch = data.steps_per_epoch(splits["train"], batch_size)
    total = epochs * per_epoch
    image_size = splits["train"].image_size
    state = init_state(network, tasks, weighting, optimizer, seed=seed, image_size=image_size)
    if encoder is not None:
        loaded = pretrained.put_into(state.variables, encoder)
        state = state._replace(variables=loaded.variables)
    steps = make_train_step(
        network, tasks, weighting, optimizer,
        image_size=image_size, batch_size=batch_size, devices=devices, augment=augment,
        jitter=jitter, gram_of=gram_of,
        labelled=None if splits["train"].labelled is None else data.labelled_images(
            tasks, batch_size=batch_size, labelled=labelled_per_batch
        ),
    )  # fmt: skip
    if cache != "none":
        entries = data.evaluation_entries(tasks)
        splits = {name: data.in_memory(split, entries) for name, split in splits.items()}
    batch_of = feed.make_feed(
        splits["train"], tasks, cache=cache, batch_size=batch_size,
        labelled=labelled_per_batch, seed=seed, devices=devices,
    )  # fmt: skip
    predict = evaluation.network_predictor(network, tasks)
    evaluation_step = evaluation.evaluation_step(predict, tasks, devices)

    how = {"batch_size": evaluation_batch_size, "devices": devices, "protocol": protocol}

    def measure(variables: models.Variables, split: str) -> dict[str, float]:
        return evaluation.evaluate(evaluation_step, variables, splits[split], tasks, **how)

    class_names = splits["test"].class_names
    watched = "validation" if "validation" in splits else "test"
    best = watched == "validation"
    with stop_on_signals() as stopping:
        with checkpoint.open_checkpoints(folder, keep=keep, best=best) as manager:
            state = take_up(manager, parallel.replicate(state, devices), total)
            start, done = int(state.step), int(state.step) // per_epoch
            if start < total:
                workdir.remove_result(folder)
            accepted()
            log = results.Log(folder, tasks, start=start, epoch=done, class_names=class_names)
            for epoch in range(done + 1, epochs + 1):
                batches = data.prefetch(range(int(state.step), epoch * per_epoch), batch_of)
                pace = Pace(batch_size)
                bar = tqdm(
                    batches, f"epoch {epoch}/{epochs}", epoch * per_epoch - int(state.step),
                    postfix="compiling" if epoch == done + 1 else None,
                    disable=not workdir.is_writer(),
                )  # fmt: skip
                state = run_epoch(steps, state, bar, tasks, pace, stopping, every=weighting_every)
                if int(state.step) < epoch * per_epoch:
                    checkpoint.save(manager, int(state.step), state)
                    break
                row = results.epoch_row(state.sums, tasks, epoch=epoch, step=int(state.step))
                row |= pace.report() | {"learning_rate": float(learning_rate(int(state.step) - 1))}
                score = None
                if epoch % evaluate_every == 0 or epoch == epochs:
                    row["evaluation"] = measure(state.variables, watched)
                    score = results.score(row["evaluation"], tasks) if best else None
                # The row comes first: every checkpoint then has the rows of its epochs.
                log.add(row)
                state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
                checkpoint.save(manager, int(state.step), state, score=score)
                report_epoch(row, tasks, scored=score is not None or not best)
                if stopping(int(state.step)):
                    break
        stopped = stopping(int(state.step))
    if stopped or int(state.step) < total:
        raise faults.Stopped(f"stopped and saved at step {int(state.step)} of {total}")
    if log.added and log.rows[-1]["skipped_steps"] == per_epoch:
        raise FloatingPointError(
            "no step of the last epoch had a finite gradient, so that there is no result: lower "
            "--learning_rate or look at the data; the checkpoints are kept"
        )
    samples = evaluation.sample_predictions(predict, state.variables, splits["test"], tasks)
    workdir.write_samples(folder, samples)
    final = None if best else log.evaluation()
    final = final or measure(state.variables, "test")
    floor = evaluation.floor(splits, tasks, split="test", **how)
    leaked = data.common_images(splits["train"], splits["test"])
    return log.finish(final, floor, class_names, watched=watched, leaked=leaked)


def report_epoch(row: Mapping[str, Any], tasks: Sequence[Task], *, scored: bool) -> None:
    """Prints an epoch's evaluation, if it had one."""
    if "evaluation" not in row:
        return
    tqdm.write(f"epoch {row['epoch']}: {results.one_line(row['evaluation'], tasks)}")
    if not scored:
        tqdm.write(
            f"epoch {row['epoch']}: a task's validation error is not finite, so that this can't be "
            "the best checkpoint"
        )


def take_up(manager: CheckpointManager, state: TrainState, total: int) -> TrainState:
    """The state of the last checkpoint, or the given one where there is none.

    Raises:
      ValueError: if it has taken more steps than the run is to have.
    """
    taken = manager.latest_step()
    if taken is None:
        return state
    if taken > total:
        raise ValueError(
            f"--epochs: the run has taken {taken} steps already, more than the {total} that these "
            "epochs have; set at least as many as before"
        )
    state = restore_state(manager, state)
    print(f"resumed from step {int(state.step)} of {total}")
    return state


def restore_variables(
    folder: Path,
    splits: dict[str, data.Dataset],
    tasks: Sequence[Task],
    network: models.Network,
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    *,
    which: str,
    devices: Sequence[jax.Device],
) -> models.Variables:
    """The network's variables of a run's checkpoint: latest, best, or that of a step.

    The other arguments are those of `train`, which tell the structure of the whole state.

    Raises:
      ValueError: if there is no such checkpoint or it can't be read.
    """
    size = splits["train"].image_size
    state = init_state(network, tasks, weighting, optimizer, seed=0, image_size=size)
    state = parallel.replicate(state, devices)
    with checkpoint.open_checkpoints(folder, best=which == "best", read_only=True) as manager:
        return restore_state(manager, state, which=which).variables


def restore_state(
    manager: CheckpointManager, like: TrainState, *, which: str = "latest"
) -> TrainState:
    """A saved state; of the sums, which another version of the program may have had others of.

    Args:
      manager: from `checkpoint.open_checkpoints`.
      like: a state of this run, on the devices on which the saved one is to be.
      which: see `checkpoint.restore`.
    """
    zero = like.sums["steps"]
    names = checkpoint.saved_names(manager, "sums", which=which) or like.sums
    saved = checkpoint.restore(manager, like._replace(sums=dict.fromkeys(names, zero)), which=which)
    step = checkpoint.chosen(manager, which)
    if int(saved.step) != step:
        raise ValueError(
            f"{manager.directory / str(step)} holds the state of step {int(saved.step)}: give the "
            "folder its name back"
        )
    return saved._replace(
        sums={name: saved.sums.get(name, value) for name, value in like.sums.items()}
    )


def run_epoch(
    steps: dict[bool, StepFunction],
    state: TrainState,
    bar: tqdm,
    tasks: Sequence[Task],
    pace: "Pace",
    stopping: Callable[[int], bool],
    *,
    every: int,
) -> TrainState:
    """Steps through the bar's batches, or until it is asked to stop.

    Raises:
      FloatingPointError: after `MAX_SKIPPED` steps in a row with a non-finite gradient.
    """
    # The host follows one step behind, so that the device never waits for it.
    previous = None
    number = int(state.step)
    for batch in bar:
        state, shown = steps[number % every == 0](state, batch)
        number += 1
        if previous is not None:
            show(bar, tasks, previous, number - 1)
        pace.tick()
        previous = shown
        if stopping(number):
            break
    if previous is not None:
        show(bar, tasks, previous, number)
    bar.close()
    return state


def show(bar: tqdm, tasks: Sequence[Task], shown: dict[str, jax.Array], step: int) -> None:
    """Writes a step's losses and weights next to the bar.

    Raises:
      FloatingPointError: if no gradient was finite in the last steps.
    """
    losses, weights, skipped = jax.device_get((shown["losses"], shown["weights"], shown["skipped"]))
    if skipped >= MAX_SKIPPED:
        raise FloatingPointError(
            f"gradients were not finite for {MAX_SKIPPED} steps in a row up to step {step}: lower "
            "--learning_rate or look at the data; the last good checkpoint is kept"
        )
    parts = [
        f"{task.name[:3]} {loss:.3f}·{weight:.2g}"
        for task, loss, weight in zip(tasks, losses, weights, strict=True)
    ]
    bar.set_postfix_str("  ".join(["loss·weight:", *parts]), refresh=False)


class Pace:
    """Time taken by an epoch and its images a second, the first two steps left out.

    These compile: of a weighting that is not updated at every step, each another function.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.start = time.monotonic()
        self.times: list[float] = []

    def tick(self) -> None:
        """Notes that a step was handed to the device and the one before it has finished."""
        self.times.append(time.monotonic())

    def report(self) -> dict[str, float | None]:
        """`seconds` and `images_per_second` (None for less than three steps)."""
        images = self.batch_size * (len(self.times) - 2)
        return {
            "seconds": time.monotonic() - self.start,
            "images_per_second": images / (self.times[-1] - self.times[1]) if images > 0 else None,
        }


@contextmanager
def stop_on_signals() -> Iterator[Callable[[int], bool]]:
    """Gives a function that says after a step whether to stop: a signal to stop has come.

    Schedulers send SIGTERM before they kill. A second signal ends the program at once. Several
    processes agree on the step after which they stop, whichever of them got the signal; of SIGTERM
    they then expect one alone.
    """
    alone = jax.process_count() == 1
    event = threading.Event()
    stopping = (
        (lambda step: event.is_set()) if alone else multihost_utils.reached_preemption_sync_point
    )
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def at_once() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if alone:
            for number in set(caught) - {signal.SIGINT}:
                signal.signal(number, signal.SIG_DFL)

    def first(number: int, frame: Any) -> None:
        at_once()
        event.set()
        if not alone:
            # JAX listens to SIGTERM, and tells the others.
            os.kill(os.getpid(), signal.SIGTERM)
        # A print could fall into another one, which Python forbids.
        name = signal.Signals(number).name
        with suppress(OSError):
            os.write(2, f"\n{name}: saving after this step; again: ends at once\n".encode())

    caught = faults.stop_signals() if alone else (signal.SIGINT,)
    before = [signal.signal(number, first) for number in caught]
    try:
        yield stopping
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)
