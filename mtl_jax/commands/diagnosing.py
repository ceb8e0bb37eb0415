"""A diagnosis of the tasks of a network: would they gain from a weighting?"""

from pathlib import Path

import optax

from mtl_jax import data, files, parallel
from mtl_jax.commands import assembly, one_run
from mtl_jax.data.outline import Outline
from mtl_jax.report import pictures
from mtl_jax.report.diagnosis import diagnosis_figure
from mtl_jax.runs import workdir
from mtl_jax.runs.settings import Settings, folder_of
from mtl_jax.tasks import Codebook
from mtl_jax.training.step import Recipe, TrainState, init_state, make_steps
from mtl_jax.training.survey import Survey, survey, watched_sum
from mtl_jax.weighting import diagnose


def check(settings: Settings, outline: Outline) -> Settings:
    """Returns the settings with the sum of the losses; refuses those that can't be diagnosed.

    Training takes gradients at the last weights, so an average of the weights is left out.

    Raises:
      ValueError: naming the setting.
      OSError: for a folder that can't be written.
    """
    if len(settings.tasks) < 2:
        raise ValueError(f"`tasks`={settings.tasks[0]}: a diagnosis needs at least two tasks")
    plain = {"weighting": "equal", "weigh_every": 1, "gradients": "parameters", "average": 0.0}
    settings = Settings(**vars(settings) | plain)
    recipe, _ = assembly.build(settings, outline)
    assembly.check_step(settings, recipe, outline)
    files.check_writable("`out`" if settings.out else "`workdir`", out_of(settings))
    assembly.open_pretrained(settings, recipe, outline)
    return settings


def out_of(settings: Settings) -> Path:
    """Returns the folder that the files are written to."""
    return Path(settings.out or folder_of(settings)).expanduser()


def run(settings: Settings, splits: assembly.Splits, outline: Outline) -> str:
    """Watches the gradients of a run's checkpoint or of a new network; writes what they show.

    Args:
      settings: from `check`, of the run in the folder `workdir` if it holds one.
      splits: of the data set.
      outline: facts about it.

    Returns:
      What diagnose.md says, and where it is.
    """
    codebook = assembly.codebook_of(settings, splits)
    recipe, _ = assembly.build(settings, outline, codebook=codebook)
    network = assembly.fitted(recipe.network, splits["train"])
    recipe = recipe._replace(network=network, weighting=watched_sum(), average=None)
    trained = workdir.has_checkpoint(folder_of(settings))
    if trained:
        # The gradients of this checkpoint, which stays as it is.
        recipe = recipe._replace(optimizer=optax.set_to_zero())
    seen = _watch(settings, splits, recipe, _first_state(settings, outline, recipe, codebook))
    found = diagnose(seen.grams, seen.losses, names=[task.name for task in network.tasks])
    when = f"the first {found.steps} steps of training"
    if trained:
        checkpoint = f"checkpoint {settings.checkpoint} of {folder_of(settings)}"
        when = f"{found.steps} steps at {checkpoint}"
    text = (
        f"Gradients of the shared parameters in {when}, batches of {settings.batch_size} images:"
        f"\n\n{found}\n"
    )
    if workdir.is_writer():
        out = out_of(settings)
        out.mkdir(parents=True, exist_ok=True)
        picture = pictures.to_png(diagnosis_figure(found, seen.grams, network.tasks))
        files.write(out / "diagnose.png", picture)
        files.write(out / "diagnose.md", f"# Diagnosis\n\n{text}\n![](diagnose.png)\n")
    return f"{text}\nwritten to {out_of(settings) / 'diagnose.md'}"


def _first_state(
    settings: Settings, outline: Outline, recipe: Recipe, codebook: Codebook | None
) -> TrainState:
    """Returns the state of the run's checkpoint, without its optimizer, or that of a new run."""
    tensors = assembly.open_pretrained(settings, recipe, outline, announce=True)
    size = outline.image_size
    state = init_state(recipe, seed=settings.seed, image_size=size, pretrained=tensors)
    devices = assembly.devices_of(settings, "batch_size")
    state = parallel.replicate(state, devices)
    if workdir.has_checkpoint(folder_of(settings)):
        _, variables = one_run.restore(settings, codebook=codebook, devices=devices)
        state = state._replace(variables=variables)
    return state


def _watch(
    settings: Settings, splits: assembly.Splits, recipe: Recipe, state: TrainState
) -> Survey:
    """Takes the steps and records their losses and Gram matrices."""
    devices = assembly.devices_of(settings, "batch_size")
    labelled = assembly.labelled_per_batch(settings, recipe)
    train = splits["train"]
    steps = make_steps(
        recipe,
        image_size=train.image_size,
        batch_size=settings.batch_size,
        devices=devices,
        augment=assembly.augmentation(settings),
        labelled_per_batch=labelled,
        accumulate=settings.accumulate,
    )
    feed = data.make_feed(
        train,
        recipe.network.tasks,
        cache=settings.cache,
        batch_size=settings.batch_size,
        labelled_per_batch=labelled,
        seed=settings.seed,
        devices=devices,
    )
    return survey(state, steps, feed, count=settings.diagnose_steps)
