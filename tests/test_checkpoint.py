"""Saving and restoring states, on other devices than those that saved them too."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import checkpoint, parallel
from mtl_jax.weighting import METHODS

STATE = {"step": np.int32(3), "weights": np.arange(6, dtype=np.float32).reshape(2, 3)}
RESTORE = """
import sys, jax, jax.numpy as jnp
from mtl_jax import checkpoint
assert len(jax.devices()) == 1
like = {"step": jnp.zeros((), jnp.int32), "weights": jnp.zeros((2, 3))}
with checkpoint.open_checkpoints(sys.argv[1], read_only=True) as manager:
    state = checkpoint.restore(manager, like)
print(int(state["step"]), state["weights"].tolist())
"""


def save(folder, step=3, **options):
    state = parallel.replicate(STATE, jax.local_devices())
    with checkpoint.open_checkpoints(folder, **options) as manager:
        checkpoint.save(manager, step, state)


def test_saved_on_four_devices_restored_where_there_is_one(tmp_path):
    save(tmp_path)
    output = subprocess.run(
        [sys.executable, "-c", RESTORE, str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert output.split(maxsplit=1) == ["3", "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]\n"]


def test_reading_leaves_what_is_being_written_alone(tmp_path):
    save(tmp_path)
    unfinished = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        assert manager.latest_step() == 3
    assert unfinished.exists()


@pytest.mark.parametrize("which", ["4", "best", "first"])
def test_checkpoints_that_are_not_there(tmp_path, which):
    save(tmp_path)
    like = jax.tree.map(jnp.asarray, STATE)
    complaint = f"--checkpoint={which}.*holds the steps \\[3\\]"
    with (
        checkpoint.open_checkpoints(tmp_path, best=True, read_only=True) as manager,
        pytest.raises(ValueError, match=complaint),
    ):
        checkpoint.restore(manager, like, which=which)


def test_at_least_the_last_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="--keep=0"):
        checkpoint.open_checkpoints(tmp_path, keep=0)


def test_the_state_of_every_weighting_is_kept_bit_for_bit(tmp_path):
    trunk = {"kernel": jax.ShapeDtypeStruct((2, 5), jnp.float32)}
    fresh = {name: make().init(3, trunk) for name, make in METHODS.items()}
    rng = np.random.default_rng(0)
    # States that no method starts from.
    states = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(2, 9, leaf.shape).astype(leaf.dtype)), fresh
    )
    with checkpoint.open_checkpoints(tmp_path) as manager:
        checkpoint.save(manager, 1, states)
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        restored = checkpoint.restore(manager, fresh)
    assert jax.tree.structure(restored) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, restored, states)
