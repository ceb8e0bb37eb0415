"""From a run to its user: the weights for other frameworks."""
