"""Parts of a run that are made of its settings and its training labels."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_jax import data, models, tasks
from mtl_jax.commands import assembly
from mtl_jax.deploy import weights
from mtl_jax.tasks import segmentation
from tests import fakes, tiny


def test_class_weights_come_from_the_labels_that_the_training_split_shows(capsys):
    chosen = tasks.select(["segmentation", "depth"], segmentation_loss="ce:weights=frequency")
    train = data.open_splits(fakes.builder(train=6))["train"]
    train = data.withhold_labels(train, label_fraction=0.5)
    network = assembly.fitted(tiny.network(chosen), train)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"class weights: {fakes.CLASSES[0]} ")
    shown = [train.source[int(i)]["segmentation"] for i in train.indices[train.labelled]]
    counts = np.array([np.sum(np.array(shown) == c) for c in range(len(fakes.CLASSES))])
    log_p = np.log(np.full((1, 2, 3, len(counts)), 1 / len(counts)), dtype=np.float32)
    labels = np.resize(np.arange(-1, len(counts)), (1, 2, 3))
    expected = segmentation.cross_entropy(
        jnp.array(log_p), jnp.int32(labels), class_weights=segmentation.balanced(counts)
    )
    found = network.tasks[0].loss(jnp.array(log_p), {"segmentation": jnp.int32(labels)})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # What is fitted or needs no fit stays as it is.
    assert assembly.fitted(network, train) == network
    assert network.tasks[1] is chosen[1]
    assert not capsys.readouterr().out


def test_what_a_run_takes_from_a_file_of_weights_is_announced(tmp_path, capsys):
    model = "resnet_unet:backbone=resnet18"
    network = models.build(tiny.TASKS, num_classes=len(fakes.CLASSES), model=model)
    variables = models.init(network, jax.random.key(0), (32, 32))
    save_file(weights.tensors_of(variables), tmp_path / "of-3.safetensors")
    settings = SimpleNamespace(
        model=model,
        seed=3,
        workdir=[str(tmp_path)],
        pretrained=f"{tmp_path}/of-{{seed}}.safetensors",
    )
    recipe = tiny.recipe()._replace(network=network)
    outline = SimpleNamespace(image_size=(32, 32))
    assembly.open_pretrained(settings, recipe, outline, announce=True)
    taken = "100 tensors for the encoder, 91 for the rest; not used: none; from scratch: none"
    assert taken in capsys.readouterr().out


def test_options_are_checked_by_the_rate_that_a_run_of_a_sweep_has():
    settings = SimpleNamespace(
        tasks=["depth"],
        optimizer="adamw:weight_decay=2.0",
        learning_rates=[0.1, 0.6],
        learning_rate=0.1,
        average=0.0,
    )
    network = tiny.network(tasks.select(["depth"]))
    params = {"kernel": jnp.ones((2, 2))}
    recipe = assembly.recipe_of(settings, network, tiny.IMAGE_SIZE)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = recipe.optimizer.update(nothing, recipe.optimizer.init(params), params)
    # A step of AdamW shrinks a weight without a gradient by the rate times the weight decay.
    np.testing.assert_allclose(updates["kernel"], -0.2, rtol=1e-6)
    settings.learning_rate = 0.6
    with pytest.raises(ValueError, match="weight_decay must be less than 1 / `learning_rate`"):
        assembly.recipe_of(settings, network, tiny.IMAGE_SIZE)
