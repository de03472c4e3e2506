"""Which frame of a layer is shown when: slow, held, backward, later, in step with another one.

A time map is a row of whole numbers: entry n is the frame of the layer that picture n shows, ``ABSENT`` where it shows none.
Lu et al., *Layered Neural Rendering for Retiming People in Video* (SIGGRAPH Asia 2020): each layer has a time of its own.
"""

from __future__ import annotations

import re

import numpy as np

from ssvid.errors import SsvidError

ABSENT = -1
LONGEST = 100_000  # pictures
_FRAMES = re.compile(
    r"(?:(?P<word>all|reverse)|(?P<first>\d+)(?:\.\.(?P<last>\d+))?)(?:x(?P<factor>\d+(?:\.\d+)?|\.\d+))?"
)
_PAUSE = re.compile(r"(?P<word>hold|none):(?P<count>\d+)")
_FORM = (
    "parts with commas between them, each a frame (7), frames from..to (0..23, backward 23..0), all, or reverse, with x2 behind it to "
    "show them at half speed and x0.5 at double speed; hold:N to go on with the last frame for N pictures, none:N to show nothing for N"
)


def parse_time_map(text: str, num_frames: int) -> np.ndarray:
    """A time map from its short form: ``0..23x2,hold:10``, ``none:5,all``, ``reverse``.

    Args:
        num_frames: of the layer; frames are counted from 0.

    Raises:
        SsvidError: a part is not of that form, names a frame that is not there, or holds a frame before there is one.
    """
    frames: list[int] = []
    for part in text.split(","):
        frames += _part(part.strip(), text, frames, num_frames)
        if len(frames) > LONGEST:
            raise SsvidError(
                f"time {text!r} makes more than {LONGEST} pictures. Take fewer frames or a smaller factor."
            )
    return np.array(frames)


def _part(part: str, text: str, before: list[int], num_frames: int) -> list[int]:
    if pause := _PAUSE.fullmatch(part):
        count = min(int(pause["count"]), LONGEST + 1)
        if pause["word"] == "none":
            return [ABSENT] * count
        if not before:
            raise SsvidError(
                f"time {text!r} begins with {part}, and there is no frame yet to hold. Name one before it: 0,{part}."
            )
        return [before[-1]] * count
    found = _FRAMES.fullmatch(part)
    if not found:
        raise SsvidError(f"time {text!r} has {part!r} in it, which is no part of a time map. It is {_FORM}.")
    first, last = _ends(found, num_frames)
    if max(first, last) >= num_frames:
        raise SsvidError(
            f"time {text!r} names frame {max(first, last)}; there are {num_frames}, 0 to {num_frames - 1}. Name one of these."
        )
    factor = float(found["factor"] or 1)
    count = abs(last - first) + 1
    if not 0 < factor * count <= LONGEST:
        raise SsvidError(
            f"time {text!r} has the factor {factor:g}; it must be above 0 and make at most {LONGEST} pictures."
        )
    run = np.arange(first, last + 1) if last >= first else np.arange(first, last - 1, -1)
    return stretched(run, factor).tolist()


def _ends(found: re.Match[str], num_frames: int) -> tuple[int, int]:
    if found["word"]:
        return (0, num_frames - 1) if found["word"] == "all" else (num_frames - 1, 0)
    first = int(found["first"])
    return first, int(found["last"] or first)


def stretched(map_N: np.ndarray, factor: float) -> np.ndarray:
    """The same in ``factor`` times as many pictures, one at least: frames are shown longer, or some left out."""
    count = max(1, round(len(map_N) * factor))
    return map_N[(np.arange(count) * len(map_N)) // count]


def delayed(map_N: np.ndarray, pictures: int) -> np.ndarray:
    """The same so many pictures later, with its first frame held before; earlier where negative, with its last frame held after."""
    return map_N[(np.arange(len(map_N)) - pictures).clip(0, len(map_N) - 1)]


def synchronized(map_N: np.ndarray, frame: int, picture: int) -> np.ndarray:
    """Delayed so that ``frame`` is shown in ``picture``: a jump of one person at the moment of another one's.

    Raises:
        SsvidError: the map never shows that frame.
    """
    shown = np.flatnonzero(map_N == frame)
    if not len(shown):
        raise SsvidError(
            f"frame {frame} is never shown by this time map, so it cannot be shown in picture {picture}. Take another frame."
        )
    return delayed(map_N, picture - int(shown[0]))


def lasting(map_N: np.ndarray, num_pictures: int) -> np.ndarray:
    """Cut, or with its last entry held, to so many pictures."""
    return map_N[np.arange(num_pictures).clip(max=len(map_N) - 1)]
