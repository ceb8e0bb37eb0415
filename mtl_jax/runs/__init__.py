"""What a run leaves: its folder, settings, log and checkpoints; and grids of runs."""
