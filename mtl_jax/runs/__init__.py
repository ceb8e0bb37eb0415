"""The files of a run (folder, settings, log, checkpoints), and grids of runs."""
