"""Films of what was followed: overlays, what was found beside the truth, and which sequences of many are worth a look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ssvid.evals.label_propagation.drawing import draw_small, evened, side_by_side
from ssvid.video import write_video

CRF = 20  # quality of a film at full size, of H.264
CRF_SMALL = 26  # of one that a page holds
BESIDE_PX = 640  # longer side of each picture of a film beside the truth


def write_film(path: Path, pictures: Iterable[np.ndarray], fps: float, *, crf: int = CRF) -> int:
    """Pictures of one size, uint8 HWC, as H.264 that any browser plays; the number of frames.

    An odd side is one pixel longer in the film: its last column or row is there twice.

    Raises:
        DataError: there is no picture, they differ in size, or fps is not positive.
    """
    return write_video(path, map(evened, pictures), fps, crf=crf)


def beside_truth(
    frames: Iterable[np.ndarray],
    found: Iterable[np.ndarray | None],
    truth: Iterable[np.ndarray | None],
    *,
    most_px: int = BESIDE_PX,
) -> Iterator[np.ndarray]:
    """Each frame with the labels that were found, and beside it with the true ones.

    Args:
        frames: uint8 HWC. found, truth: ids HW of their size; None where a frame has none. most_px: longer side of each.
    """
    for frame_HWC, found_HW, truth_HW in zip(frames, found, truth, strict=True):
        pictures = {
            "found": draw_small(frame_HWC, found_HW, most_px=most_px),
            "truth" if truth_HW is not None else "truth: none of this frame": draw_small(
                frame_HWC, truth_HW, most_px=most_px
            ),
        }
        yield side_by_side(pictures)


def worth_a_look(scores: Mapping[str, float]) -> dict[str, str]:
    """``best``, ``median`` and ``worst`` sequence by their scores; of fewer than three sequences only those that are there.

    Of an even number the median is the better one of the two in the middle. Equal scores are ordered by name.
    """
    order = sorted(scores, key=lambda name: (-scores[name], name))
    chosen = {"best": order[0], "worst": order[-1], "median": order[(len(order) - 1) // 2]} if order else {}
    return {
        word: name for word, name in chosen.items() if list(chosen.values()).index(name) == list(chosen).index(word)
    }
