"""Benchmarks and the comparison with PyTorch; only the modes that measure import them."""
