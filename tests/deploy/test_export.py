"""An exported folder is complete, and gives the network's numbers with and without mtl_jax."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.export import deserialize
from PIL import ExifTags, Image
from safetensors.numpy import load_file, save_file

from mtl_jax import files, models
from mtl_jax.commands import loading
from mtl_jax.deploy import export as module
from mtl_jax.deploy import weights
from mtl_jax.deploy.card import command
from mtl_jax.deploy.export import export
from mtl_jax.deploy.origin import Origin
from mtl_jax.deploy.photos import read
from mtl_jax.deploy.predictor import Predictor, shrink
from mtl_jax.models import pretrained
from mtl_jax.tasks import select
from mtl_jax.tasks.codebook import triangulate
from tests import fakes, tiny

SIZE = (32, 48)
CONFIG = {
    "dataset": "rooms:train=8,test=4",
    "model": "tiny",
    "tasks": ["segmentation", "depth", "normals"],
    "depth_loss": "l1",
    "normals_loss": "cosine",
    "normals_source": "labels",
    "precision": "float32",
    "image_size": list(SIZE),
    "pretrained": None,
    "class_names": list(fakes.CLASSES),
}
RESULT = {
    "split": "test",
    "step": 7,
    "metrics": {"segmentation/miou": 0.2315, "depth/absolute_error": 0.5932},
    "floor": {"segmentation/miou": 0.0304, "depth/absolute_error": None},
}
SAMPLES = {"image": np.zeros((2, *SIZE, 3), np.uint8), "depth": np.full((2, *SIZE), 2.5)}
ORIGIN = Origin(
    config=CONFIG,
    step=7,
    result=RESULT,
    versions={"jax": "0.8.0"},
    codebook=None,
    samples=SAMPLES,
    licence="The images are yours.",
    limits=["It knows only stripes."],
)
# Modules that the example must do without.
FOREIGN = ("mtl_jax", "flax", "optax", "orbax", "safetensors", "PIL")
FILES = {"README.md", "example.py", "model.json", "model.stablehlo", "weights.safetensors"}


def make(*, channels=3, size=SIZE, **options):
    """A predictor whose normalisation has statistics as after training."""
    tasks = select(CONFIG["tasks"], **options)
    network = tiny.network(tasks)._replace(channels=channels)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.float32(leaf * rng.uniform(0.9, 1.1, leaf.shape)),
        models.init(network, jax.random.key(0), size),
    )
    return Predictor(
        network, variables, class_names=fakes.CLASSES, image_size=size, focal_length=0.9
    )


def photos(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def assert_close(found, expected):
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        if values.dtype.kind == "i":
            assert np.mean(found[name] != values) < 1e-3
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", autouse=True)
def with_tiny_network():
    """The name of the tiny network can be read from an exported folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.model)
        yield


@pytest.fixture(scope="module")
def predictor():
    return make()


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "model"
    assert set(export(folder, predictor, ORIGIN)) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    return folder


def test_stablehlo_gives_the_numbers_of_the_predictor(exported, predictor):
    program = deserialize((exported / "model.stablehlo").read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[0]) == "uint8[batch,32,48,3]"
    images = photos(3, *SIZE)
    expected = predictor(images)
    assert_close(jax.device_get(program.call(images)), expected)
    first = {name: values[:1] for name, values in expected.items()}
    assert_close(jax.device_get(program.call(images[:1])), first)


def test_loading_it_gives_the_same_predictor(exported, predictor):
    loaded = loading.load(exported)
    for name in ("tasks", "units", "class_names", "image_size", "focal_length"):
        assert getattr(loaded, name) == getattr(predictor, name)
    np.testing.assert_array_equal(loaded.palette, predictor.palette)
    image = photos(50, 40)
    for name, values in predictor(image).items():
        np.testing.assert_array_equal(loaded(image)[name], values)
    with pytest.raises(ValueError, match="`checkpoint`=best: .* export of step 7 alone"):
        loading.load(exported, checkpoint="best")


def run_example(folder, image, place):
    """Runs the example of an export with an array where nothing else is installed."""
    for name in FOREIGN:
        (place / f"{name}.py").write_text("raise ImportError('it is not installed')\n")
    np.save(place / "photo.npy", image)
    return run_example_with("photo.npy", folder, place)


def run_example_with(photo, folder, place):
    return subprocess.run(
        [sys.executable, str(folder / "example.py"), photo, "results.npz"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )


def test_the_example_runs_without_mtl_jax(exported, predictor, tmp_path):
    assert len((exported / "example.py").read_text().splitlines()) <= 34
    image = photos(*SIZE)
    done = run_example(exported, image, tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        assert_close(results, predictor(image))


def test_the_example_turns_a_photo_as_the_predictor_does(exported, predictor, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn clockwise makes it upright
    image = photos(*SIZE)
    Image.fromarray(np.rot90(image)).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "photo.png").pixels, image)
    done = run_example_with("photo.png", exported, tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        assert_close(results, predictor(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_shows_transparent_parts_as_the_predictor_does(channels, tmp_path):
    made = make(channels=channels)
    export(tmp_path / "model", made, ORIGIN)
    layer = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), np.uint8)
    Image.fromarray(layer).save(tmp_path / "photo.png")
    done = run_example_with("photo.png", tmp_path / "model", tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        assert_close(results, made(read(tmp_path / "photo.png").pixels))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_example_refuses_more_bits_than_it_can_read(exported, kind, tmp_path):
    numbers = np.linspace(0, 1, 32 * 48).reshape(SIZE) * (65535 if kind == np.uint16 else 1)
    Image.fromarray(numbers.astype(kind)).save(tmp_path / "photo.tif")
    done = run_example_with("photo.tif", exported, tmp_path)
    assert done.returncode == 1
    assert "more than 8 bits" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("size", [SIZE, (41, 61)])
def test_the_example_resizes_the_depth_of_a_sensor_as_the_predictor_does(size, tmp_path):
    seeing_depth = make(channels=4, size=size)
    export(tmp_path / "model", seeing_depth, ORIGIN)
    # Colours that need no rounding, and depth that is missing in places.
    shape = 2 * size[0], 2 * size[1]
    depth = np.random.default_rng(0).choice(np.uint8([0, 50, 200]), (*shape, 1))
    image = np.concatenate([np.full((*shape, 3), 100, np.uint8), depth], axis=-1)
    done = run_example(tmp_path / "model", image, tmp_path)
    assert done.returncode == 0, done.stderr
    seen = np.rint(255 * np.asarray(shrink(image, size=size))).astype(np.uint8)
    with np.load(tmp_path / "results.npz") as results:
        assert_close(results, seeing_depth(seen))
    refused = run_example(tmp_path / "model", image[..., :3], tmp_path)
    assert refused.returncode == 1 and "not 3 channels, but 4" in refused.stderr


def test_weights_can_be_started_from(tmp_path):
    network = models.build(select(["depth"]), num_classes=3, model="resnet_unet:backbone=resnet18")
    path = tmp_path / "weights.safetensors"
    written = models.init(network, jax.random.key(0), SIZE)
    save_file(weights.tensors_of(written), path)
    tensors = load_file(path)
    assert {"encoder.layer1.0.conv1.weight", "heads.depth.output.weight"} <= tensors.keys()
    fresh = models.init(network, jax.random.key(1), SIZE)
    loaded = pretrained.put_into(fresh, pretrained.read(path))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, written)
    assert loaded.count + loaded.others == len(jax.tree.leaves(tuple(fresh)))
    assert not loaded.skipped


def test_the_description_is_plain_json(exported):
    about = json.loads((exported / "model.json").read_text())
    assert about["class_names"] == list(fakes.CLASSES)
    assert len(about["palette"]) == 3
    depth = about["outputs"]["depth"]
    assert depth["type"] == "float32" and depth["shape"] == ["batch", *SIZE]
    assert "metres" in depth["unit"]
    assert about["result"] == RESULT
    assert "class_names" not in about["settings"]


def test_the_card_says_what_the_model_is(exported):
    card = (exported / "README.md").read_text()
    for fact in (
        "# tiny for segmentation, depth and normals",
        "| mIoU % ↑ | 23.15 | 3.04 |",
        "| AbsErr m ↓ | 0.5932 | – |",
        "gives every pixel the most frequent class, the median depth and the mean normal",
        "| 1 | floor | #",
        "horizontal field of view of 58 degrees",
        "`depth` ranges from 2.50 to 2.50",
        "- It knows only stripes.",
        "cameras with about the field of view",
        "The images are yours.",
        "jax 0.8.0",
        "--dataset=rooms:train=8,test=4",
        "--image_size=32x48",
        "the state at step 7",
    ):
        assert fact in card, fact
    assert "pretrained=" not in card and "model.onnx" not in card and "None" not in card
    named = re.findall(r"^\| `([\w.]+\.\w+)` \|", card, flags=re.MULTILINE)
    assert {*named, "README.md"} == FILES


def test_the_command_of_the_card_is_that_of_the_run():
    weights = "ce:weights=" + "+".join(f"{1 + i / 8:g}" for i in range(40))
    own = "photos-of-the-kitchen-and-of-the-other-rooms-of-a-house-and-of-its-garden.py:photos"
    config = {
        **CONFIG,
        "segmentation_loss": weights,
        "dataset": f"/home/someone/{own}",
        "weighting": "/home/someone/mine.py:by_size",
        "folder": "/home/someone/my photos",
        "pretrained": "/home/someone/rooms-{seed}.safetensors",
        "augment": False,
    }
    words = shlex.split(command(ORIGIN._replace(config=config)).replace("\\\n", ""))
    assert words[:2] == ["python", "launch.py"]
    assert {
        f"--segmentation_loss={weights}",
        f"--dataset={own}",
        "--weighting=mine.py:by_size",
        "--folder=my photos",
        "--pretrained=rooms-{seed}.safetensors",
        "--augment=false",
    } <= set(words)
    assert all(word.startswith("--") for word in words[2:])


def test_a_state_without_results_has_no_metrics(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(module.program, "to_stablehlo", lambda predictor: b"")
    export(tmp_path / "model", predictor, ORIGIN._replace(result={}, samples={}))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "has not been evaluated" in card
    assert "ranges from" not in card


def test_normals_as_classes_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module.program, "to_stablehlo", lambda predictor: b"")
    corners = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], np.float32) / 3**0.5
    loss = "codebook:codewords=4"
    predictor = make(normals_loss=loss, codebook=triangulate(corners))
    origin = ORIGIN._replace(config={**CONFIG, "normals_loss": loss}, codebook=corners)
    export(tmp_path / "model", predictor, origin)
    image = photos(*SIZE)
    found, expected = loading.load(tmp_path / "model")(image), predictor(image)
    np.testing.assert_allclose(found["normals"], expected["normals"], atol=1e-5)


def test_only_an_earlier_export_is_replaced(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(module.program, "to_stablehlo", lambda predictor: b"new")
    folder = tmp_path / "model"
    folder.mkdir()
    export(folder, predictor, ORIGIN)
    (folder / "model.stablehlo").write_bytes(b"old")
    export(folder, predictor, ORIGIN)
    assert (folder / "model.stablehlo").read_bytes() == b"new"

    def fail(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write", fail)
    with pytest.raises(ValueError, match="`out`=.*No space left"):
        export(folder, predictor, ORIGIN)
    assert (folder / "model.stablehlo").read_bytes() == b"new"
    monkeypatch.undo()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="`out`=.*no export, such as thesis.txt"):
        export(folder, predictor, ORIGIN)
    assert (folder / "thesis.txt").read_text() == "mine"
    for wrong in (folder / "thesis.txt", folder / "thesis.txt" / "x", tmp_path / "x.safetensors"):
        with pytest.raises(ValueError, match="`out`="):
            export(wrong, predictor, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def damage(name, change):
    def apply(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (damage("model.json", lambda text: text[:50]), "model.json is damaged"),
        (damage("model.json", lambda text: b"{}"), "another version of mtl_jax"),
        (
            damage("model.json", lambda text: b'{"format": 1}'),
            "damaged.*no class_names",
        ),
        (damage("weights.safetensors", lambda data: data[:1000]), "safetensors is damaged"),
        (
            damage("model.json", lambda text: text.replace(b"tiny", b"resnet_unet")),
            "another network",
        ),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors"),
    ],
    ids=["cut", "empty", "bare", "weights", "other", "gone"],
)
def test_a_damaged_folder_is_refused(exported, tmp_path, apply, message):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("*.stablehlo"))
    apply(folder)
    with pytest.raises((ValueError, OSError), match=message):
        loading.load(folder)


def test_a_folder_with_neither_run_nor_export_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="neither a run.*nor an exported"):
            loading.load(folder)
