"""One LightningModule for all tasks, and the run folder around it."""
