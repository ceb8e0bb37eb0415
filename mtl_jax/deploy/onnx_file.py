"""A trained network as an ONNX file, by jax2onnx, which is an extra."""

import importlib.util
import logging

import jax
import jax.numpy as jnp

from mtl_jax.deploy.predictor import Predictor
from mtl_jax.deploy.program import function_of

# ONNX Runtime reads it since version 1.14.
OPSET = 18


def is_possible() -> bool:
    """Returns whether jax2onnx is installed."""
    return importlib.util.find_spec("jax2onnx") is not None


def to_onnx(predictor: Predictor) -> bytes:
    """Returns the ONNX file of the function of photos u8[batch, H, W, C], for any number of them.

    It computes in float32, since ONNX Runtime has no convolutions in bfloat16 on a CPU.
    """
    import jax2onnx  # pyrefly: ignore[missing-import]

    photos = jax.ShapeDtypeStruct(("batch", *predictor.image_shape), jnp.uint8)
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    # It warns of each shape that it leaves to be inferred.
    logger.setLevel(logging.ERROR)
    try:
        model = jax2onnx.to_onnx(
            function_of(in_float32(predictor)),
            [photos],
            model_name="mtl_jax",
            opset=OPSET,
            input_names=["photos"],
            output_names=sorted(predictor.tasks),  # as JAX flattens dictionaries
        )
    finally:
        logger.setLevel(level)
    return model.SerializeToString()


def in_float32(predictor: Predictor) -> Predictor:
    """Returns the predictor with a network that computes in single precision."""
    network = predictor.network
    heads = {name: head.clone(dtype=jnp.float32) for name, head in network.heads.items()}
    return Predictor(
        network._replace(trunk=network.trunk.clone(dtype=jnp.float32), heads=heads),
        predictor.variables,
        class_names=predictor.class_names,
        image_size=predictor.image_size,
    )
