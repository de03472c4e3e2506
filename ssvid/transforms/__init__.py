"""From frames to tensors: one draw per clip, whole clips at a time."""

from ssvid.transforms.geometry import (
    center_square,
    crop_rectangle,
    crop_square,
    crop_squares,
    random_area,
    random_square,
    resize_clips,
    shifted_boxes,
    squash,
)

__all__ = [
    "center_square",
    "crop_rectangle",
    "crop_square",
    "crop_squares",
    "random_area",
    "random_square",
    "resize_clips",
    "shifted_boxes",
    "squash",
]
