"""Masks of objects: read as they were painted, cut out of frames, carried from a few frames to all."""
