"""The same networks, losses and steps in PyTorch, to compare with; needs `mtl_jax[torch]`.

Nothing outside this folder imports PyTorch unless it is asked to compare.
"""
