"""The same networks, losses and steps in PyTorch, to compare with; needs the extra `torch`.

Nothing outside this folder imports PyTorch unless it is asked to compare.
"""
