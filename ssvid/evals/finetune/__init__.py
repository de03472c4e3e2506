"""Fine-tuning: train the backbone on labels, and score it."""
