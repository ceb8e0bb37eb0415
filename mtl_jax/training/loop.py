"""The training loop: feeds batches, saves, resumes, evaluates and logs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint import CheckpointManager
from tqdm import tqdm

from mtl_jax import data, faults, parallel
from mtl_jax.data import Feed
from mtl_jax.runs import checkpoint, results, terminal, workdir
from mtl_jax.tasks import Task
from mtl_jax.training import details
from mtl_jax.training.evaluation import Evaluation, Judge
from mtl_jax.training.pace import Pace
from mtl_jax.training.restore import restore_latest
from mtl_jax.training.step import MAX_SKIPPED, Steps, TrainState, evaluated
from mtl_jax.training.stopping import Stopping, stop_on_signals
from mtl_jax.training.sums import add_seconds, epoch_row

NEEDS_VALIDATION = (
    "`patience`={}: it counts evaluations on images that are held out; set `validation` to their "
    "number"
)


class Evaluations(NamedTuple):
    """When a run is evaluated, and when evaluations end it.

    Attributes:
      every: epochs between evaluations.
      patience: evaluations without a new best one after which the run ends, see `results.score`; 0
        for none. It needs a split `validation`.
    """

    every: int = 1
    patience: int = 0


EVERY_EPOCH = Evaluations()


class Plan(NamedTuple):
    """Length and schedule of a run.

    Attributes:
      epochs: epochs of training.
      steps_per_epoch: whole batches of the training split.
      evaluations: when there are evaluations.
      schedule: learning rate of each step.
      watched: the split that is evaluated during training. Results on `validation` choose the best
        checkpoint; those on `test` choose nothing.
    """

    epochs: int
    steps_per_epoch: int
    evaluations: Evaluations
    schedule: optax.Schedule
    watched: str

    @property
    def total(self) -> int:
        """Returns the number of steps."""
        return self.epochs * self.steps_per_epoch

    @property
    def keeps_best(self) -> bool:
        """Returns whether evaluations during training choose a checkpoint."""
        return self.watched == "validation"

    def is_over(self, rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> bool:
        """Returns whether the evaluations in a log's rows end the run before its last epoch."""
        patience = self.evaluations.patience
        return 0 < patience <= results.since_best(rows, tasks)


def train(
    folder: Path,
    state: TrainState,
    steps: Steps,
    feed: Feed,
    judge: Judge,
    *,
    epochs: int,
    schedule: optax.Schedule,
    evaluations: Evaluations = EVERY_EPOCH,
    keep: int = 1,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Trains from the folder's last checkpoint, or from scratch, to the end; then evaluates.

    During training the split `validation` is evaluated where there is one, else `test`; the final
    evaluation is of `test`. A killed run resumes from its last checkpoint with the same results. If
    a finished run takes more steps, its old result is deleted.

    Args:
      folder: folder of the run, owned (see `lock.own`).
      state: from `step.init_state`.
      steps: from `step.make_steps`.
      feed: from `make_feed`.
      judge: from `evaluation.make_judge`.
      schedule: the optimizer's learning rate, to log it.
      evaluations: when to evaluate, and when to end before the last epoch.
      keep: number of last checkpoints to keep.
      accepted: called once the checkpoint is read and fits these `epochs`, before anything is
        written; the caller can then record the settings of the run.

    Returns:
      What `result.json` holds.

    Raises:
      faults.Stopped: after SIGTERM or Ctrl-C, with the state saved.
      ValueError: if the checkpoint can't be used, or there is a `patience` without a split
        `validation`, with nothing written.
      OSError: if a file can't be written; the last good checkpoint is kept.
      FloatingPointError: if gradients stay non-finite; the last good checkpoint is kept.
    """
    watched = "validation" if "validation" in judge.splits else "test"
    plan = Plan(epochs, feed.steps_per_epoch, evaluations, schedule, watched)
    if evaluations.patience and not plan.keeps_best:
        raise ValueError(NEEDS_VALIDATION.format(evaluations.patience))
    with stop_on_signals() as stopping:
        with checkpoint.open_checkpoints(folder, keep=keep, best=plan.keeps_best) as manager:
            state, log = set_up(folder, state, judge, manager, plan, accepted)
            state, evaluation = fit(state, steps, feed, judge, log, manager, stopping, plan)
        # At this point all checkpoints are on disk.
        stopped = stopping(int(state.step))
    early = plan.is_over(log.rows, judge.tasks)
    if stopped or (int(state.step) < plan.total and not early):
        raise faults.Stopped(f"stopped and saved at step {int(state.step)} of {plan.total}")
    return finish(folder, state, judge, log, plan, None if plan.keeps_best else evaluation)


def set_up(
    folder: Path,
    state: TrainState,
    judge: Judge,
    manager: CheckpointManager,
    plan: Plan,
    accepted: Callable[[], None],
) -> tuple[TrainState, results.Log]:
    """Restores the last checkpoint and opens the log; see `train`."""
    first = parallel.replicate(state, judge.devices)
    state = restore_latest(manager, first, plan.total)
    step = int(state.step)
    if state is not first:
        print(f"resumed from step {step} of {plan.total}")
    if step < plan.total:
        workdir.remove_result(folder)
    accepted()
    log = results.Log(
        folder,
        judge.tasks,
        start=step,
        epoch=step // plan.steps_per_epoch,
        class_names=judge.splits["test"].class_names,
    )
    return state, log


def fit(
    state: TrainState,
    steps: Steps,
    feed: Feed,
    judge: Judge,
    log: results.Log,
    manager: CheckpointManager,
    stopping: Stopping,
    plan: Plan,
) -> tuple[TrainState, Evaluation | None]:
    """Trains epoch by epoch to the end of the plan, or until asked to stop, and saves each epoch.

    Returns:
      The state that was saved last, and its evaluation on the watched split if it had one.
    """
    evaluation = None
    start = int(state.step) // plan.steps_per_epoch
    pace = Pace(feed.batch_size)
    for epoch in range(start + 1, plan.epochs + 1):
        if plan.is_over(log.rows, judge.tasks):
            count = plan.evaluations.patience
            tqdm.write(f"stopped after epoch {epoch - 1}: no better result in {count} evaluations")
            break
        end = epoch * plan.steps_per_epoch
        pace.begin()
        bar = tqdm(
            data.prefetch(range(int(state.step), end), feed.at),
            f"epoch {epoch}/{plan.epochs}",
            total=plan.steps_per_epoch,
            initial=plan.steps_per_epoch - (end - int(state.step)),
            postfix="compiling" if epoch == start + 1 else None,
            disable=not workdir.is_writer(),
        )
        state = run_epoch(steps, state, bar, judge.tasks, pace, stopping)
        state = state._replace(sums=add_seconds(state.sums, pace.seconds()))
        step = int(state.step)
        if step < end:
            checkpoint.save(manager, step, state)
            break
        row = epoch_row(state.sums, judge.tasks, epoch=epoch, step=step)
        # The schedule of the optimizer counts only the steps that were not skipped.
        taken = step - sum(each["skipped_steps"] for each in (*log.rows, row))
        rate = np.asarray(plan.schedule(max(taken - 1, 0))).item()
        row |= pace.report() | {"learning_rate": rate}
        score, evaluation = None, None
        if epoch % plan.evaluations.every == 0 or epoch == plan.epochs:
            evaluation = judge.evaluate(evaluated(state), plan.watched)
            row["evaluation"] = evaluation.metrics
            if plan.keeps_best:
                score = results.score(row["evaluation"], judge.tasks)
        # The row comes first: every checkpoint then has the rows of its epochs.
        log.add(row)
        state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
        checkpoint.save(manager, step, state, score=score)
        report_epoch(row, judge.tasks, scored=score is not None or not plan.keeps_best)
        if stopping(step):
            break
    return state, evaluation


def finish(
    folder: Path,
    state: TrainState,
    judge: Judge,
    log: results.Log,
    plan: Plan,
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    """Makes the final evaluation, unless there is one, and writes the result; see `train`.

    Args:
      evaluation: of this state on `test`; None if it has not been made.

    Raises:
      FloatingPointError: if all steps of the last epoch were skipped.
    """
    if log.added and log.rows[-1]["skipped_steps"] == plan.steps_per_epoch:
        raise FloatingPointError(
            "no step of the last epoch had a finite gradient, so there is no result: lower "
            "`learning_rate` or look at the data; the checkpoints are kept"
        )
    variables = evaluated(state)
    workdir.write_arrays(folder / "samples.npz", judge.samples(variables, "test"))
    final = evaluation or judge.evaluate(variables, "test")
    found = details.collect(judge, variables, "test", final)
    workdir.write_arrays(folder / "evaluation.npz", found)
    return log.finish(
        final.metrics,
        judge.floor("test"),
        watched=plan.watched,
        patience=plan.evaluations.patience if int(state.step) < plan.total else 0,
        leaked=data.common_images(judge.splits["train"], judge.splits["test"]),
        labels=judge.labels("test"),
    )


def run_epoch(
    steps: Steps,
    state: TrainState,
    bar: tqdm,
    tasks: Sequence[Task],
    pace: Pace,
    stopping: Stopping,
) -> TrainState:
    """Takes a step for each of the bar's batches, or until asked to stop.

    Raises:
      FloatingPointError: after `MAX_SKIPPED` steps in a row with a non-finite gradient.
    """
    # The host follows one step behind, so that the device never waits for it.
    previous = None
    number = int(state.step)
    for batch in bar:
        if previous is None:
            # Once the first batch is there.
            pace.count_from(number)
        program = steps.at(number)
        state, shown = program(state, batch)
        number += 1
        if previous is not None:
            show(bar, tasks, previous, number - 1)
        if pace.compiles(program):
            jax.block_until_ready(shown)
            pace.count_from(number)
        previous = shown
        if stopping(number):
            break
    if previous is not None:
        show(bar, tasks, previous, number)
    pace.count_to(number)
    bar.close()
    return state


def show(bar: tqdm, tasks: Sequence[Task], shown: dict[str, jax.Array], step: int) -> None:
    """Shows a step's losses and weights next to the bar.

    Raises:
      FloatingPointError: if no gradient was finite in the last steps.
    """
    losses, weights, skipped = jax.device_get((shown["losses"], shown["weights"], shown["skipped"]))
    if skipped >= MAX_SKIPPED:
        raise FloatingPointError(
            f"gradients were not finite for {MAX_SKIPPED} steps in a row up to step {step}: lower "
            "`learning_rate` or look at the data; the last good checkpoint is kept"
        )
    parts = [
        f"{task.name[:3]} {loss:.3f}·{weight:.2g}"
        for task, loss, weight in zip(tasks, losses, weights, strict=True)
    ]
    bar.set_postfix_str("  ".join(["loss·weight:", *parts]), refresh=False)


def report_epoch(row: Mapping[str, Any], tasks: Sequence[Task], *, scored: bool) -> None:
    """Prints an epoch's evaluation, if it had one.

    Args:
      row: a row of `metrics.jsonl`.
      scored: whether the epoch's checkpoint can be the best one, or none is chosen.
    """
    if "evaluation" not in row:
        return
    tqdm.write(f"epoch {row['epoch']}: {terminal.one_line(row['evaluation'], tasks)}")
    if not scored:
        tqdm.write(
            f"epoch {row['epoch']}: a task's validation error is not finite, so this can't be "
            "the best checkpoint"
        )
