"""From frames to tensors: one draw per clip, whole clips at a time."""

from ssvid.transforms.cuts import Cut, CutFirst, Cuts, Cutter, cut_view, cuts_of
from ssvid.transforms.geometry import (
    Box,
    Rectangle,
    center_square,
    crop_rectangle,
    crop_square,
    crop_squares,
    flip_clips,
    flip_some,
    frame_squares,
    random_area,
    random_square,
    resize_clips,
    shifted_boxes,
    square,
    squash,
)

__all__ = [
    "Box",
    "Cut",
    "CutFirst",
    "Cuts",
    "Cutter",
    "Rectangle",
    "center_square",
    "crop_rectangle",
    "crop_square",
    "crop_squares",
    "cut_view",
    "cuts_of",
    "flip_clips",
    "flip_some",
    "frame_squares",
    "random_area",
    "random_square",
    "resize_clips",
    "shifted_boxes",
    "square",
    "squash",
]
