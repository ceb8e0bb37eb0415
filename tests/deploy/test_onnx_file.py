"""ONNX Runtime computes what the predictor does."""

import jax
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.deploy import onnx_file
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.tasks import select
from tests import fakes

SIZE = (64, 96)


def make(model, **options):
    network = models.build(
        select(["segmentation", "depth", "normals"]),
        num_classes=len(fakes.CLASSES),
        model=model,
        **options,
    )
    variables = models.init(network, jax.random.key(0), SIZE)
    return Predictor(network, variables, class_names=fakes.CLASSES, image_size=SIZE)


@pytest.mark.parametrize(
    "model",
    [
        "resnet_unet:backbone=resnet18",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resnet_unet:backbone=resnet50", "segnet", "mtan")
        ),
    ],
)
def test_onnx_runtime_gives_the_numbers_of_the_predictor(model):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    predictor = make(model)
    content = onnx_file.to_onnx(predictor)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (photos,) = session.get_inputs()
    assert (photos.name, photos.type) == ("photos", "tensor(uint8)")
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(predictor.tasks)
    for number in (1, 3):
        images = np.random.default_rng(number).integers(0, 256, (number, *SIZE, 3), np.uint8)
        found = dict(zip(names, session.run(None, {"photos": images}), strict=True))
        for name, values in predictor(images).items():
            assert found[name].dtype == values.dtype
            if values.dtype.kind == "i":
                assert np.mean(found[name] != values) < 1e-3
            else:
                np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3)


def test_a_network_in_half_precision_is_written_in_single_precision():
    half = make("resnet_unet:backbone=resnet18", dtype=jax.numpy.bfloat16)
    single = make("resnet_unet:backbone=resnet18")
    # The tasks, whose losses are functions of their own in each network, have no precision.
    modules = [
        (x.network.trunk, x.network.heads) for x in (half, single, onnx_file.in_float32(half))
    ]
    assert modules[0] != modules[1]
    assert modules[2] == modules[1]
