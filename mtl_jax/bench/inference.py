"""What a prediction costs: by one network for all tasks, and by one network for each of them.

Everything that is timed does the same: it takes photos from the host's memory and gives classes,
metres and unit vectors. Forms of one network are timed in turn, so that noise affects all alike.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mtl_jax import models
from mtl_jax.bench import page
from mtl_jax.bench.speed import megabytes, take_turns
from mtl_jax.deploy import onnx_file
from mtl_jax.deploy.folding import fold, folded
from mtl_jax.deploy.predictor import Predictor, predict_images
from mtl_jax.tasks import IMAGE, Task

# One image is what a robot or a phone sees, many are an archive.
BATCH_SIZES = (1, 32)
PRECISIONS = (jnp.float32, jnp.bfloat16)
TOGETHER, ALONE = "JAX, float32, folded", "JAX, float32, folded, one network per task"

ONNX = "ONNX Runtime, float32, folded"

# Photos u8[B, H, W, 3] -> task name -> prediction [B, H, W, ...].
Predict = Callable[[np.ndarray], Mapping[str, Any]]


class MakeNetwork(Protocol):
    """Makes a network for some tasks that computes in a precision."""

    def __call__(self, tasks: Sequence[Task], *, dtype: DTypeLike) -> models.Network: ...


class Row(NamedTuple):
    """The cost of predicting all tasks with one network, or with one for each task.

    Attributes:
      model: text of the network.
      form: how it is run, such as `TOGETHER` or `ALONE`.
      batch_size: images per call.
      milliseconds: per image.
      parameters: number of parameters, of all networks that are used.
      gigaflop: operations per image, before XLA simplifies them; None for other libraries.
      megabytes: weights of all networks, and what the largest of them needs besides, as XLA
        estimates it, in MiB; None for other libraries.
    """

    model: str
    form: str
    batch_size: int
    milliseconds: float
    parameters: int
    gigaflop: float | None
    megabytes: float | None


class Prediction:
    """Networks that predict all tasks one after another, compiled for batches of one size.

    Args:
      networks: networks whose tasks are all different.
      variables: variables that hold those of every network.
      image_size: height and width.
      batch_size: photos per call.
      ready: whether batch normalisation is folded into the convolutions, and the weights have the
        type that the network computes in, as in a network that is deployed.
    """

    def __init__(
        self,
        networks: Sequence[models.Network],
        variables: models.Variables,
        *,
        image_size: tuple[int, int],
        batch_size: int,
        ready: bool,
    ):
        photos = jax.ShapeDtypeStruct((batch_size, *image_size, 3), jnp.uint8)
        self.compiled, self.weights, self.gigaflop = [], [], 0.0
        for network in networks:
            own = part_of(variables, network)
            own = ready_weights(network, own, image_size) if ready else own
            lowered = jax.jit(partial(predict, network, ready)).lower(own, photos)
            self.gigaflop += flop(lowered) / batch_size / 1e9
            self.compiled.append(lowered.compile())
            self.weights.append(jax.device_put(own))

    def __call__(self, photos: np.ndarray) -> dict[str, jax.Array]:
        found = {}
        for run, weights in zip(self.compiled, self.weights, strict=True):
            found |= jax.block_until_ready(run(weights, photos))
        return found

    @property
    def megabytes(self) -> float:
        """The memory in MiB of all weights, and what the largest network needs besides."""
        weights = [sum(x.nbytes for x in jax.tree.leaves(own)) / 2**20 for own in self.weights]
        besides = [megabytes(x) - own for x, own in zip(self.compiled, weights, strict=True)]
        return sum(weights) + max(besides)


def predict(
    network: models.Network, is_folded: bool, weights: models.Variables, photos: jax.Array
) -> dict[str, jax.Array]:
    """Returns the predictions of photos u8[B, H, W, 3] in their final form."""
    with folded() if is_folded else nullcontext():
        found = predict_images(network, weights, IMAGE.decode(photos))
    return {task.name: task.sample(found[task.name]) for task in network.tasks}


def flop(lowered: jax.stages.Lowered) -> float:
    """Returns the number of floating-point operations of a function."""
    facts: Any = lowered.cost_analysis()
    return facts["flops"]


def part_of(variables: models.Variables, network: models.Network) -> models.Variables:
    """Returns the variables of a network with some of the heads."""
    return models.Variables(
        *(
            {"trunk": tree["trunk"], "heads": {name: tree["heads"][name] for name in network.heads}}
            for tree in variables
        )
    )


def ready_weights(
    network: models.Network, variables: models.Variables, image_size: tuple[int, int]
) -> models.Variables:
    """Returns folded variables in the type that the network computes in."""
    dtype = getattr(network.trunk, "dtype", jnp.float32)
    return jax.tree.map(lambda x: x.astype(dtype), fold(network, variables, image_size))


def forms(
    make: MakeNetwork,
    tasks: Sequence[Task],
    variables: models.Variables,
    *,
    image_size: tuple[int, int],
    batch_size: int,
) -> dict[str, Prediction]:
    """Compiles all forms of a network, by name: precisions, folded and not, and one per task."""
    compiled = partial(
        Prediction, variables=variables, image_size=image_size, batch_size=batch_size
    )
    found = {}
    for dtype in PRECISIONS:
        network, name = make(tasks, dtype=dtype), f"JAX, {jnp.dtype(dtype).name}"
        found[f"{name}, folded"] = compiled([network], ready=True)
        found[name] = compiled([network], ready=False)
    alone = [make([task], dtype=jnp.float32) for task in tasks]
    return found | {ALONE: compiled(alone, ready=True)}


def measure(
    make: MakeNetwork,
    tasks: Sequence[Task],
    *,
    model: str,
    image_size: tuple[int, int],
    rounds: int,
    rivals: Callable[[models.Network, models.Variables], Mapping[str, Predict]],
) -> list[Row]:
    """Times all forms of a network, and of its rivals.

    Args:
      make: makes the network.
      tasks: tasks to predict.
      model: text of the network.
      image_size: height and width.
      rounds: number of timed calls of each form.
      rivals: makes functions of the same network in other libraries, by name.
    """
    network = make(tasks, dtype=jnp.float32)
    variables = models.init(network, jax.random.key(0), image_size)
    parameters = {
        name: sum(count(part_of(variables, make(part, dtype=jnp.float32))) for part in parts)
        for name, parts in ((TOGETHER, [tasks]), (ALONE, [[task] for task in tasks]))
    }
    others, rows = rivals(network, variables), []
    for batch_size in BATCH_SIZES:
        photos = noise((batch_size, *image_size, 3))
        own = forms(make, tasks, variables, image_size=image_size, batch_size=batch_size)
        times = take_turns(
            {k: partial(run, photos) for k, run in {**own, **others}.items()}, rounds
        )
        rows += [
            Row(
                model=model,
                form=form,
                batch_size=batch_size,
                milliseconds=milliseconds / batch_size,
                parameters=parameters.get(form, parameters[TOGETHER]),
                gigaflop=own[form].gigaflop if form in own else None,
                megabytes=own[form].megabytes if form in own else None,
            )
            for form, milliseconds in times.items()
        ]
    return rows


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """Returns photos of noise u8[B, H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def count(variables: models.Variables) -> int:
    """Returns the number of parameters."""
    return sum(x.size for x in jax.tree.leaves(variables.params))


def onnx_rivals(
    network: models.Network,
    variables: models.Variables,
    *,
    class_names: Sequence[str],
    image_size: tuple[int, int],
) -> dict[str, Predict]:
    """Makes the network for ONNX Runtime on a CPU, by name; none where the extra is missing."""
    try:
        import onnxruntime  # pyrefly: ignore[missing-import]
    except ImportError:
        return {}
    if not onnx_file.is_possible():
        return {}
    predictor = Predictor(network, variables, class_names=class_names, image_size=image_size)
    content = onnx_file.to_onnx(predictor)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(photos: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"photos": photos}), strict=True))

    return {ONNX: run}


def write(rows: Sequence[Row], folder: Path, *, what: str, rounds: int) -> str:
    """Writes `inference.json` and `inference.md`, and returns the text of the latter.

    Args:
      rows: from `measure`.
      folder: created if it does not exist.
      what: describes what was measured.
      rounds: number of timed calls of each.

    Raises:
      OSError: if a file can't be written, naming it.
    """
    facts = {"what": what, "rounds": rounds, "rows": [row._asdict() for row in rows]}
    text = to_markdown(rows, what=what, rounds=rounds)
    page.write(folder, "inference", text, facts)
    return text


def to_markdown(rows: Sequence[Row], *, what: str, rounds: int) -> str:
    """Returns the tables of `inference.md`; see `write`."""
    found = {(row.model, row.batch_size, row.form): row for row in rows}
    cases = list(dict.fromkeys((row.model, row.batch_size) for row in rows))
    shown = list(dict.fromkeys(row.form for row in rows if row.form != ALONE))
    pairs = {case: (found[*case, TOGETHER], found[*case, ALONE]) for case in cases}
    parts = [
        f"{what}. Medians of {rounds} calls of each form, taken in turn.\n",
        "| network | parameters, one network, M | parameters, one per task, M | × "
        "| operations per image, one network, GFLOP | operations per image, one per task, GFLOP "
        "| × |",
        f"|:--|{'--:|' * 6}",
    ]
    for (model, size), pair in pairs.items():
        if size == rows[0].batch_size:
            numbers = _compared([row.parameters / 1e6 for row in pair], "1f")
            operations = _compared([row.gigaflop for row in pair], "2f")
            parts.append(f"| {model} | {numbers} | {operations} |")
    parts += [
        "",
        "| network | images | ms per image, one network | ms per image, one per task | × "
        "| memory, one network, MiB | memory, one per task, MiB | × |",
        f"|:--|{'--:|' * 7}",
    ]
    for (model, size), pair in pairs.items():
        times = _compared([row.milliseconds for row in pair], "1f")
        memory = _compared([row.megabytes for row in pair], "0f")
        parts.append(f"| {model} | {size} | {times} | {memory} |")
    parts += ["", "Milliseconds per image of one network for all tasks:\n"]
    parts += [f"| network | images | {' | '.join(shown)} |", f"|:--|--:|{'--:|' * len(shown)}"]
    for model, size in cases:
        times = " | ".join(f"{found[model, size, form].milliseconds:.1f}" for form in shown)
        parts.append(f"| {model} | {size} | {times} |")
    return "\n".join(parts) + "\n"


def _compared(pair: Sequence[Any], form: str) -> str:
    """Returns cells with the numbers of one network and of one per task, and their ratio."""
    one, each = pair
    return f"{one:.{form}} | {each:.{form}} | {each / one:.2f}"
