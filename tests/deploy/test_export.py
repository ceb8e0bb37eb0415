"""Exported weights are all there, under the names that others know, and come back unchanged."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mtl_jax import models
from mtl_jax.deploy.export import export
from mtl_jax.models import pretrained
from mtl_jax.tasks import select


def fresh(seed):
    model = "resnet_unet:backbone=resnet18"
    network = models.build(select(["depth"]), num_classes=3, model=model)
    return models.init(network, jax.random.key(seed), (32, 48))


def test_a_round_trip_through_export(tmp_path):
    path = tmp_path / "all.safetensors"
    variables = fresh(2)
    count = export(variables, path)
    assert count == len(jax.tree.leaves(tuple(variables)))
    assert "encoder.layer1.0.conv1.weight" in load_file(path)
    assert "heads.depth.output.weight" in load_file(path)
    loaded = pretrained.put_into(fresh(0), pretrained.read(path))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    assert loaded.count + loaded.others == count
    assert not loaded.skipped


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="`out`="):
        export(fresh(0), tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="`out`=.*file/x"):
        export(fresh(0), tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
