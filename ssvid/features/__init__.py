"""Backbone and videos to vectors: what a frozen network makes of each video."""
