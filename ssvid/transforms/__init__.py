"""From frames to tensors: one draw per clip, whole clips at a time."""

from ssvid.transforms.geometry import center_square, crop_square, random_square, resize_clips, squash

__all__ = ["center_square", "crop_square", "random_square", "resize_clips", "squash"]
