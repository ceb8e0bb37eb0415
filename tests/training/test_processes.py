"""Two processes with two devices each give what one process with four gives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from mtl_jax import parallel
from mtl_jax.runs import checkpoint
from mtl_jax.training import step
from tests import tiny

ROOT = Path(__file__).parents[2]
# Adam would make steps of full length of what is rounding alone.
SGD = optax.sgd(0.1)

# Six processes compile the step anew.
pytestmark = pytest.mark.slow


def start_two(folder, *, epochs, method="nash"):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    return [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.tiny",
                str(folder), str(epochs), method, str(port), str(index),
            ],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def parameters(folder):
    state = step.init_state(tiny.recipe("nash", SGD), seed=0, image_size=tiny.IMAGE_SIZE)
    with checkpoint.open_checkpoints(folder, read_only=True) as manager:
        state = checkpoint.restore(manager, parallel.replicate(state, jax.local_devices()[:1]))
    leaves = jax.tree.leaves(state.variables)
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in leaves])


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    tiny.run(folder, epochs=1, update=SGD, devices=jax.local_devices())
    return folder


def assert_same(folder, other):
    a, b = parameters(folder), parameters(other)
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)
    for a, b in zip(rows(folder), rows(other), strict=True):
        assert a["step"] == b["step"]
        for name, value in a["train"].items():
            np.testing.assert_allclose(value, b["train"][name], rtol=1e-4)
        for name, value in a["evaluation"].items():
            np.testing.assert_allclose(value, b["evaluation"][name], rtol=1e-3, atol=1e-3)


def test_two_processes_give_what_one_gives(one_process, tmp_path):
    finish(start_two(tmp_path, epochs=1))
    assert_same(tmp_path, one_process)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["step"] == 5
    assert (tmp_path / "samples.npz").exists()


def test_one_process_goes_on_where_two_stopped_together(one_process, tmp_path):
    processes = start_two(tmp_path, epochs=200)
    deadline = time.monotonic() + 200
    while not (tmp_path / "metrics.jsonl").exists() or not rows(tmp_path):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    # It comes to the others as the SIGTERM that JAX listens to.
    processes[1].send_signal(signal.SIGINT)
    outputs = finish(processes)
    assert all("stopped and saved at step" in output for output in outputs)
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        saved = manager.latest_step()
    tiny.run(tmp_path, epochs=saved // 5 + 1, update=SGD, devices=jax.local_devices()[:1])
    assert rows(tmp_path)[-1]["step"] == 5 * (saved // 5 + 1)
    for name, value in rows(tmp_path)[0]["train"].items():
        np.testing.assert_allclose(value, rows(one_process)[0]["train"][name], rtol=1e-4)
