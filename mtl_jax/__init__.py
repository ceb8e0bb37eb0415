"""Multi-task learning of segmentation, depth and surface normals in JAX."""
