"""k nearest neighbors and retrieval on frozen features."""
