"""Networks: a trunk that the tasks share and a head for each of them."""

from mtl_jax.models.network import (
    MODELS,
    Network,
    Variables,
    apply_head,
    apply_trunk,
    build,
    check_image_size,
    fewest_images,
    frozen,
    in_encoder,
    init,
    parse_model,
    predict,
    shapes,
    trained_at,
)

__all__ = [
    "MODELS",
    "Network",
    "Variables",
    "apply_head",
    "apply_trunk",
    "build",
    "check_image_size",
    "fewest_images",
    "frozen",
    "in_encoder",
    "init",
    "parse_model",
    "predict",
    "shapes",
    "trained_at",
]
