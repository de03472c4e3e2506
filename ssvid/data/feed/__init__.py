"""Table to batches: dataset, sampler, loader, the Lightning module."""
