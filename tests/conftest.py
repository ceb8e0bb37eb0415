"""Settings that every test runs under."""

import os

# Four simulated devices, so that data parallelism is tested wherever the tests run.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import jax  # noqa: E402  (the flag above must be set first)

jax.config.update("jax_numpy_dtype_promotion", "strict")
