"""Export of a run's weights for other frameworks."""
