"""Settings that every test runs under."""

import os
import shutil
import tempfile

# Four simulated devices, so that data parallelism is tested wherever the tests run.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
# Most of the time goes into compiling programs that run once or twice on small arrays: they are
# optimised less, and what one process has compiled the others need not.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
MAKES_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if MAKES_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mtl_jax-tests-")

import jax  # noqa: E402  (the variables above must be set first)

jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_unconfigure() -> None:
    if MAKES_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
