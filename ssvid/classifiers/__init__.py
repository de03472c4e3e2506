"""Vectors or maps to classes: heads, the network that is fine-tuned, and its protocol."""
