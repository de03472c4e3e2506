"""Checkpoint to backbone: every file of weights that ssvid reads, its own and others'."""
