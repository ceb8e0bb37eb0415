"""A predictor takes photos of any size and gives the network's numbers at the photos' own size."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from datasets.resizing import resize_nearest
from mtl_jax import data, models
from mtl_jax.deploy import predictor as module
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.tasks import DEPTH, NORMALS, SEGMENTATION, select
from mtl_jax.training.evaluation import make_judge
from tests import fakes, tiny

SIZE = (32, 48)
MIRROR = {"segmentation": 1, "depth": 1, "normals": np.array([-1, 1, 1], np.float32)}


@pytest.fixture(scope="module")
def predictor():
    network = tiny.network()
    variables = models.init(network, jax.random.key(0), SIZE)
    return Predictor(network, variables, class_names=fakes.CLASSES, image_size=SIZE)


class Colours(nn.Module):
    """A trunk or head that passes some channels of the image on."""

    channels: int = 3

    @nn.compact
    def __call__(self, x, size=None, *, train):
        return x[..., : self.channels]


@pytest.fixture
def echo():
    """A predictor that gives the colours of the image: the logits, red as depth, a direction."""
    tasks = (
        SEGMENTATION,
        DEPTH._replace(activation=lambda raw, batch: raw[..., 0]),
        NORMALS,
    )
    heads = {task.name: Colours(task.channels or 3) for task in tasks}
    branches = {"trunk": {}, "heads": {task.name: {} for task in tasks}}
    return Predictor(
        models.Network(Colours(), heads, tasks),
        models.Variables(branches, branches),
        class_names=fakes.CLASSES,
        image_size=SIZE,
    )


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def ramp(height, width):
    """A photo whose red grows to the right and whose green grows downwards."""
    rows, columns = np.meshgrid(np.linspace(20, 230, height), np.linspace(10, 250, width))
    blue = np.full_like(rows, 125)
    return np.stack([columns.T, rows.T, blue.T], axis=-1).round().astype(np.uint8)


def assert_alike(one, other):
    """Asserts that predictions differ by rounding, which may decide between two classes."""
    assert np.mean(np.abs(one - other) > 1e-3) < 1e-3


def test_it_gives_the_numbers_of_an_evaluation(predictor):
    splits = data.open_splits(fakes.builder(test=4))
    devices = jax.local_devices()[:1]
    judge = make_judge(predictor.network, splits, eval_batch_size=4, devices=devices)
    samples = judge.samples(predictor.variables, "test")
    found = predictor(samples["image"])
    assert list(found) == ["segmentation", "depth", "normals"]
    for name, values in found.items():
        # Samples are kept in half precision.
        expected = samples[f"predicted_{name}"].astype(np.float32)
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "shape", [(37, 53), (2, 37, 53), (120, 60), (1, 1), (3, 200)], ids=lambda shape: str(shape)
)
def test_results_have_the_size_of_the_photo(echo, shape):
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = echo(images)
    assert [found[name].shape for name in echo.tasks] == [shape, shape, (*shape, 3)]
    assert found["segmentation"].dtype == np.int32
    assert found["depth"].dtype == found["normals"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (80, 112), (200, 310), (20, 30), (150, 90)])
def test_a_smooth_photo_comes_back_in_its_place(echo, size):
    image = ramp(*size)
    found = echo(image)
    colours = image / 255
    # Beyond the outermost centres of the smaller image there is nothing to interpolate.
    inner = tuple(slice(side // 16, side - side // 16) for side in size)
    np.testing.assert_allclose(found["depth"][inner], colours[..., 0][inner], atol=0.012)
    directions = colours / np.linalg.norm(colours, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["normals"][inner], directions[inner], atol=0.012)
    clear = np.ptp(np.sort(colours, axis=-1)[..., 1:], axis=-1) > 0.05
    np.testing.assert_array_equal(found["segmentation"][clear], colours.argmax(-1)[clear])


def test_a_batch_gives_what_its_photos_give(predictor):
    images = np.stack([photo(40, 50, seed) for seed in range(2)])
    together = predictor(images)
    for index, image in enumerate(images):
        for name, values in predictor(image).items():
            assert_alike(together[name][index], values)


def test_bands_make_no_difference(echo, monkeypatch):
    for size in ((50, 70), SIZE):
        whole = echo(photo(*size))
        monkeypatch.setattr(module, "MOST_VALUES", 1000)
        for name, values in echo(photo(*size)).items():
            np.testing.assert_allclose(values, whole[name], atol=1e-6)
        monkeypatch.undo()


def test_a_mirrored_photo_gives_the_mirrored_scene(predictor):
    image = photo(40, 52)
    found = predictor(image, flip_test=True)
    mirrored = predictor(image[:, ::-1], flip_test=True)
    for name, values in found.items():
        assert_alike(mirrored[name][:, ::-1] * MIRROR[name], values)
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=-1), 1, atol=1e-5)
    plain = predictor(image)
    assert np.abs(plain["depth"] - found["depth"]).max() > 1e-3


def test_the_network_sees_the_training_area(predictor):
    for size in (SIZE, (64, 96), (3200, 4800), (2, 3)):
        assert predictor.network_size(size) == SIZE
    assert predictor.network_size((4800, 3200)) == (48, 32)
    assert predictor.network_size((39, 39)) == (39, 39)
    for size in ((1, 10_000), (10_000, 1), (1, 1)):
        assert min(predictor.network_size(size)) >= 32
        assert np.prod(predictor.network_size(size)) <= np.prod(SIZE) + max(SIZE)
    big = Predictor(
        models.build(select(["depth"]), num_classes=3, model="segnet"),
        predictor.variables,
        class_names=(),
        image_size=(288, 384),
    )
    assert big.network_size((480, 640)) == (288, 384)
    assert big.network_size((425, 560)) == (288, 384)
    assert big.network_size((1080, 1920)) == (256, 448)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (1000, 1000), (1600, 400)])
def test_kernels_keep_the_rates_that_they_were_trained_at(size):
    """A map of 9x12 has the rates 2, 4 and 6, those of photos of another aspect have others."""
    network = models.build([DEPTH], num_classes=4, model="resnet_unet:backbone=resnet18")
    variables = models.shapes(network, (288, 384))
    predictor = Predictor(network, variables, class_names=(), image_size=(288, 384))
    found = {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, nn.Conv):
            found[context.module.name] = context.module.kernel_dilation
        return call(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, *predictor.network_size(size), 3), np.float32)
    with nn.intercept_methods(watch):
        jax.eval_shape(partial(models.predict, predictor.network), variables, {"image": image})
    rates = [found[f"atrous{number}"] for number in (1, 2, 3)]
    assert rates == [2, 4, 6]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((32, 48), np.uint8),
        np.zeros((32, 48, 4), np.uint8),
        np.zeros((32, 48, 3), np.float32),
        np.zeros((1, 1, 32, 48, 3), np.uint8),
        np.zeros((0, 48, 3), np.uint8),
        np.zeros((0, 32, 48, 3), np.uint8),
        "photo.jpg",
    ],
    ids=lambda images: str(np.shape(images)),
)
def test_what_is_no_photo_is_refused(predictor, images):
    with pytest.raises(ValueError, match="`images`: "):
        predictor(images)


def test_it_says_what_its_numbers_are(predictor):
    assert predictor.tasks == ("segmentation", "depth", "normals")
    assert "metres" in predictor.units["depth"]
    assert predictor.class_names == fakes.CLASSES
    assert predictor.palette.shape == (3, 3)
    assert predictor.palette.dtype == np.uint8


def grey_predictor():
    network = tiny.network()._replace(channels=1)
    variables = models.init(network, jax.random.key(0), SIZE)
    return Predictor(network, variables, class_names=fakes.CLASSES, image_size=SIZE)


def test_a_network_for_grey_images_takes_photos_in_colour_too():
    made, colours = grey_predictor(), photo(40, 60)
    grey = np.asarray(Image.fromarray(colours).convert("L"))[..., None]
    found, expected = made(colours), made(grey)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(ValueError, match=r"photos are uint8\[H, W, 1\], in grey"):
        made(np.zeros((40, 60, 4), np.uint8))


def test_depth_of_a_sensor_is_shrunk_to_the_nearest_pixel():
    coded = np.zeros((60, 90, 4), np.uint8)
    coded[::2, :, 3] = 200
    found = module.shrink(coded, size=(20, 30))
    assert set(np.unique(np.rint(255 * np.asarray(found[..., 3])))) <= {0, 200}


@pytest.mark.parametrize(("old", "new"), [(166, 83), (436, 109), (82, 41), (64, 96), (100, 33)])
def test_depth_of_a_sensor_is_that_of_the_pixels_that_a_data_set_takes(old, new):
    # Where the centre of a new pixel lies between two old ones, rounding may not choose.
    coded = np.random.default_rng(0).integers(0, 256, (old, 2 * old, 4), np.uint8)
    found = module.shrink(coded, size=(new, 2 * new))
    expected = resize_nearest(coded[..., 3], new, 2 * new)
    np.testing.assert_array_equal(np.rint(255 * np.asarray(found[..., 3])), expected)
