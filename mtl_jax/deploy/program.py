"""A trained network as a function of photos alone, compiled to files that need no mtl_jax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from mtl_jax.deploy.folding import fold, folded
from mtl_jax.deploy.predictor import Predictor, predict_images
from mtl_jax.tasks import IMAGE

PLATFORMS = ("cpu", "cuda", "tpu")


def function_of(predictor: Predictor) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Returns a function of photos u8[B, H, W, C] of the training size, with folded weights.

    Its results are those of the predictor: task name -> [B, H, W, ...].
    """
    network = predictor.network
    variables = fold(network, predictor.variables, predictor.image_size)

    def predict(photos: jax.Array) -> dict[str, jax.Array]:
        with folded():
            found = predict_images(network, variables, IMAGE.decode(photos))
        return {task.name: task.sample(found[task.name]) for task in network.tasks}

    return predict


def outputs_of(predictor: Predictor) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns types and shapes of the results for one photo of the training size."""
    photos = jax.ShapeDtypeStruct((1, *predictor.image_shape), jnp.uint8)
    found = jax.eval_shape(function_of(predictor), photos)
    return {
        name: jax.ShapeDtypeStruct(found[name].shape[1:], found[name].dtype)
        for name in predictor.tasks
    }


def to_stablehlo(predictor: Predictor) -> bytes:
    """Returns what `jax.export.deserialize` reads: the function for any number of photos."""
    (batch,) = export.symbolic_shape("batch")
    photos = jax.ShapeDtypeStruct((batch, *predictor.image_shape), jnp.uint8)
    made = export.export(jax.jit(function_of(predictor)), platforms=PLATFORMS)(photos)
    return bytes(made.serialize())
