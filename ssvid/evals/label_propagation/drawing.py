"""Masks and points on frames, for the eye: fills with contours, numbers, trails, sheets of key frames. Frames are uint8 HWC.

Colors are those of Okabe and Ito (2008), which people with any of the common color weaknesses tell apart; a dark line around
each contour parts it from a picture of the same color, and numbers tell objects apart where colors come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ssvid.data.masks import VOID
from ssvid.pictures import row, sheet

Color = tuple[int, int, int]

# Vermillion, sky blue, yellow, reddish purple, bluish green, blue, orange: neighbors in the list are far apart.
COLORS: tuple[Color, ...] = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (0, 114, 178),
    (230, 159, 0),
)
FILL = 0.4  # share of the object's color where it is filled
TRAIL_FRAMES = 24  # that a trail reaches back
SMALL_PX = 480  # longer side of a small picture
CAPTION_PX = 26  # height of the strip over a picture
_TINY_PX = 300  # longer side below which a small picture is larger than the video
_VOID_COLOR: Color = (150, 150, 150)
_EDGE: Color = (16, 16, 16)
_WHITE: Color = (255, 255, 255)
_PX_PER_LINE = 240  # of the shorter side for each pixel of a line's width
_MOST_NUMBERED = 40  # points; more hide the picture


def color_of(number: int) -> Color:
    """The color of an object (from 1 on); colors come again after the last. Void is gray."""
    return _VOID_COLOR if number == VOID else COLORS[(number - 1) % len(COLORS)]


def line_px(height_px: int, width_px: int) -> int:
    """How wide lines are drawn on a picture of that size, so that they are seen when it is shown small."""
    return max(1, round(min(height_px, width_px) / _PX_PER_LINE))


# ---- masks


def contours(labels_HW: np.ndarray, width_px: int = 1) -> np.ndarray:
    """Where objects end: bool HW, True on pixels of an object with another label at most ``width_px`` steps away.

    Steps go up, down, left and right. The border of the picture is no end of an object.
    """
    near_end_HW = _touching(labels_HW)
    for _ in range(width_px - 1):
        near_end_HW |= _shifted_any(near_end_HW)
    return near_end_HW & (labels_HW != 0)


def overlay(
    frame_HWC: np.ndarray,
    labels_HW: np.ndarray,
    *,
    fill: float = FILL,
    numbers: bool | None = None,
    width_px: int = 0,
) -> np.ndarray:
    """The frame with each object filled and outlined in its color.

    Args:
        labels_HW: ids of the frame's size; 0 is background, 255 void, drawn gray.
        fill: share of the color inside, 0 to 1. numbers: the id on each object; None where more than one is there.
        width_px: of contours; 0 is what suits the size.

    Raises:
        ValueError: frame and labels differ in size.
    """
    if frame_HWC.shape[:2] != labels_HW.shape:
        raise ValueError(f"a frame of {frame_HWC.shape[:2]} and labels of {labels_HW.shape} are not of one picture")
    ids = [int(number) for number in np.unique(labels_HW) if number]
    if not ids:
        return frame_HWC.copy()
    width_px = width_px or line_px(*labels_HW.shape)
    colors_K3 = np.zeros((256, 3), np.float32)
    colors_K3[ids] = [color_of(number) for number in ids]
    inside_HW, lines_HW = labels_HW != 0, contours(labels_HW, width_px)
    drawn_HWC = frame_HWC.astype(np.float32)
    drawn_HWC[inside_HW] += fill * (colors_K3[labels_HW[inside_HW]] - drawn_HWC[inside_HW])
    drawn_HWC[lines_HW] = colors_K3[labels_HW[lines_HW]]
    around_HW = ~inside_HW
    for _ in range(max(1, width_px // 2)):
        ring_HW = _shifted_any(~around_HW) & around_HW
        drawn_HWC[ring_HW] = _EDGE
        around_HW &= ~ring_HW
    painted_HWC = drawn_HWC.round().astype(np.uint8)
    objects = [number for number in ids if number != VOID]
    shown = numbers if numbers is not None else len(objects) > 1
    return _numbered(painted_HWC, labels_HW, objects) if shown else painted_HWC


def middle_of(mask_HW: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel of a mask that is farthest from its end, so inside whatever the shape is; the most central of several.

    mask: bool, with at least one pixel.
    """
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    depth_HW = ndimage.distance_transform_cdt(np.pad(mask_HW[box], 1))
    deepest_N2 = np.argwhere(depth_HW == depth_HW.max())
    y, x = deepest_N2[((deepest_N2 - np.argwhere(depth_HW).mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(x) - 1 + int(columns[0]), int(y) - 1 + int(rows[0])


def _touching(labels_HW: np.ndarray) -> np.ndarray:
    """Where a neighbor's value differs from the pixel's own."""
    found_HW = np.zeros(labels_HW.shape, bool)
    down_HW, right_HW = labels_HW[1:] != labels_HW[:-1], labels_HW[:, 1:] != labels_HW[:, :-1]
    found_HW[1:] |= down_HW
    found_HW[:-1] |= down_HW
    found_HW[:, 1:] |= right_HW
    found_HW[:, :-1] |= right_HW
    return found_HW


def _shifted_any(mask_HW: np.ndarray) -> np.ndarray:
    """Where a neighbor of the pixel, or itself, is set."""
    found_HW = mask_HW.copy()
    found_HW[1:] |= mask_HW[:-1]
    found_HW[:-1] |= mask_HW[1:]
    found_HW[:, 1:] |= mask_HW[:, :-1]
    found_HW[:, :-1] |= mask_HW[:, 1:]
    return found_HW


def _numbered(frame_HWC: np.ndarray, labels_HW: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    image = Image.fromarray(frame_HWC)
    draw = ImageDraw.Draw(image)
    for number in ids:
        _write(draw, str(number), middle_of(labels_HW == number), labels_HW.shape, anchor="mm")
    return np.asarray(image)


def _write(
    draw: ImageDraw.ImageDraw, text: str, place_px: tuple[float, float], size: tuple[int, ...], *, anchor: str
) -> None:
    """White text with a dark edge, of a size that suits the picture's height and width."""
    font_px = max(9, 7 * line_px(*size[:2]) + 5)
    draw.text(
        place_px,
        text,
        fill=_WHITE,
        font=ImageFont.load_default(font_px),
        anchor=anchor,
        stroke_width=max(1, font_px // 9),
        stroke_fill=_EDGE,
    )


# ---- points


def trails(
    frame_HWC: np.ndarray, points_TQ2: np.ndarray, visible_TQ: np.ndarray, *, trail_frames: int = TRAIL_FRAMES
) -> np.ndarray:
    """The frame with a dot at each point and a line along the way that it came; a hidden point is a hollow ring.

    A trail is broken where the point was hidden, and grows thinner into the past. What lies outside the picture is not drawn.

    Args:
        points_TQ2: x, y in pixels up to this frame, which is the last; NaN where unknown. visible_TQ: of the same frames.
        trail_frames: how far trails reach back; 0 draws dots alone.
    """
    image = Image.fromarray(frame_HWC)
    draw = ImageDraw.Draw(image)
    height_px, width_px = frame_HWC.shape[:2]
    thick_px = line_px(height_px, width_px)
    first = max(0, len(points_TQ2) - 1 - trail_frames)
    for point in range(points_TQ2.shape[1]):
        way_T2, seen_T = points_TQ2[first:, point], visible_TQ[first:, point]
        _draw_way(draw, way_T2, seen_T & np.isfinite(way_T2).all(axis=1), color_of(point + 1), thick_px)
        x, y = (float(value) for value in way_T2[-1])
        if 0 <= x < width_px and 0 <= y < height_px:  # False for NaN
            _draw_dot(draw, (x, y), color_of(point + 1), thick_px, is_hollow=not seen_T[-1])
            if 1 < points_TQ2.shape[1] <= _MOST_NUMBERED:
                where = (x + 4 * thick_px, y - 3 * thick_px)
                _write(draw, str(point + 1), where, frame_HWC.shape, anchor="lb")
    return np.asarray(image)


def _draw_way(draw: ImageDraw.ImageDraw, way_T2: np.ndarray, seen_T: np.ndarray, color: Color, thick_px: int) -> None:
    for edge in (True, False):  # the dark edges first, so that none covers the color
        for i in range(1, len(way_T2)):
            if seen_T[i - 1] and seen_T[i]:
                age = 1 - i / (len(way_T2) - 1)
                width = max(1, round(2 * thick_px * (1 - 0.6 * age)))
                ends = [tuple(map(float, way_T2[i - 1])), tuple(map(float, way_T2[i]))]
                draw.line(ends, fill=_EDGE if edge else color, width=width + 2 * thick_px * edge)


def _draw_dot(
    draw: ImageDraw.ImageDraw, place_px: tuple[float, float], color: Color, thick_px: int, *, is_hollow: bool
) -> None:
    x, y = place_px
    for reach, fill in ((4, _EDGE), (3, _WHITE), (2.2, color)):
        r = reach * thick_px
        if is_hollow:
            draw.ellipse([x - r, y - r, x + r, y + r], outline=_EDGE if reach == 4 else color, width=thick_px)
        else:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)


# ---- many frames


def key_frames(num_frames: int, count: int, given: Iterable[int] = ()) -> list[int]:
    """Numbers of at most ``count`` frames, evenly spread from the first to the last; those ``given`` are all among them."""
    even = np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int).tolist()
    return sorted({*even, *given})


def shrunk(frame_HWC: np.ndarray, most_px: int) -> np.ndarray:
    """The frame with its longer side at most ``most_px``; a smaller one as it is."""
    image = Image.fromarray(frame_HWC)
    if max(image.size) > most_px:
        image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
    return np.asarray(image)


def captioned(frame_HWC: np.ndarray, text: str) -> np.ndarray:
    """The frame under a dark strip with a line of text, in a smaller type where it is long."""
    width_px = frame_HWC.shape[1]
    strip = Image.new("RGB", (width_px, CAPTION_PX), (24, 24, 24))
    font = ImageFont.load_default(CAPTION_PX * 2 // 3)
    if (length_px := font.getlength(text)) > width_px - 10:
        font = ImageFont.load_default(max(8, int(CAPTION_PX * 2 / 3 * (width_px - 10) / length_px)))
    ImageDraw.Draw(strip).text((5, CAPTION_PX // 2), text, fill=(235, 235, 235), anchor="lm", font=font)
    return np.concatenate([np.asarray(strip), frame_HWC])


def side_by_side(pictures: Mapping[str, np.ndarray], *, gap_px: int = 4) -> np.ndarray:
    """Pictures of one size in a row, each under its name."""
    return row([captioned(picture, name) for name, picture in pictures.items()], gap_px)[:-gap_px, :-gap_px]


def key_frame_sheet(pictures: Sequence[tuple[str, np.ndarray]], *, columns: int = 4, gap_px: int = 4) -> np.ndarray:
    """Captioned pictures of one size, ``columns`` to a row."""
    told = [captioned(picture, text) for text, picture in pictures]
    lines = [row(told[i : i + columns], gap_px) for i in range(0, len(told), columns)]
    return sheet(lines)[:-gap_px, :-gap_px]


def evened(frame_HWC: np.ndarray) -> np.ndarray:
    """The frame with its last column or row repeated where a side is odd: H.264 as players read it (yuv420p) needs even sides."""
    height_px, width_px = frame_HWC.shape[:2]
    if height_px % 2 == width_px % 2 == 0:
        return frame_HWC
    return np.pad(frame_HWC, ((0, height_px % 2), (0, width_px % 2), (0, 0)), mode="edge")


# ---- all at once


class Tracks(NamedTuple):
    """Where points are, frame by frame. points_TQ2: x, y in pixels; NaN where unknown. visible_TQ: bool."""

    points_TQ2: np.ndarray
    visible_TQ: np.ndarray

    def until(self, frame: int, trail_frames: int = TRAIL_FRAMES) -> Tracks:
        """What a picture of that frame shows of them."""
        shown = slice(max(0, frame - trail_frames), frame + 1)
        return Tracks(self.points_TQ2[shown], self.visible_TQ[shown])


def draw(frame_HWC: np.ndarray, labels_HW: np.ndarray | None = None, tracks: Tracks | None = None) -> np.ndarray:
    """A frame with what is known of it. tracks: up to this frame."""
    picture_HWC = frame_HWC if labels_HW is None else overlay(frame_HWC, labels_HW)
    return picture_HWC if tracks is None else trails(picture_HWC, *tracks)


def draw_small(
    frame_HWC: np.ndarray,
    labels_HW: np.ndarray | None = None,
    tracks: Tracks | None = None,
    *,
    most_px: int = SMALL_PX,
) -> np.ndarray:
    """The same, made small before it is drawn on, so that lines and numbers can be seen; a tiny video is made larger."""
    small_HWC = shrunk(frame_HWC, most_px)
    if max(small_HWC.shape) < min(_TINY_PX, most_px):
        times = min(_TINY_PX, most_px) / max(small_HWC.shape)
        size_px = (round(small_HWC.shape[1] * times), round(small_HWC.shape[0] * times))
        small_HWC = np.asarray(Image.fromarray(small_HWC).resize(size_px, Image.Resampling.BICUBIC))
    if labels_HW is not None:
        image = Image.fromarray(labels_HW).resize(small_HWC.shape[1::-1], Image.Resampling.NEAREST)
        labels_HW = np.asarray(image)
    if tracks is not None:
        scale = small_HWC.shape[1] / frame_HWC.shape[1]
        tracks = tracks._replace(points_TQ2=(tracks.points_TQ2 + 0.5) * scale - 0.5)
    return draw(small_HWC, labels_HW, tracks)
