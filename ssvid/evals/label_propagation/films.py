"""Films of what was followed: overlays, what was found beside the truth, and which sequences of many are worth a look."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

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
        frames: uint8 HWC; the shortest of the three ends it. found, truth: ids HW of their size; None where a frame has none. most_px: longer side of each.
    """
    for frame_HWC, found_HW, truth_HW in zip(frames, found, truth, strict=False):
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


# ---- a few of many sequences


class Album:
    """Masks that were found in many sequences, kept until it is known which of them are worth a look.

    They are packed without loss, a few kilobytes a frame at 480p.
    """

    def __init__(self) -> None:
        self._packed: dict[str, list[bytes]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether masks of a sequence were kept."""
        return bool(self._packed.get(name))

    def keeper(self, name: str) -> Callable[[np.ndarray], None]:
        """What takes the masks of a sequence, uint8 HW, frame by frame; those that were kept under this name are forgotten."""
        packed = self._packed[name] = []

        def keep(labels_HW: np.ndarray) -> None:
            file = io.BytesIO()
            Image.fromarray(labels_HW).save(file, "PNG")
            packed.append(file.getvalue())

        return keep

    def masks(self, name: str) -> Iterator[np.ndarray]:
        """The masks of a sequence in turn; none where nothing was kept."""
        for content in self._packed.get(name, ()):
            with Image.open(io.BytesIO(content)) as picture:
                yield np.asarray(picture)


class SequenceFootage(NamedTuple):
    """A sequence to be shown. frames: reads them anew, uint8 HWC. truth: the mask of a frame, None where it has none."""

    frames: Callable[[], Iterator[np.ndarray]]
    truth: Callable[[int], np.ndarray | None]
    fps: float


def draw_sequences(
    folder: Path, ending: str, scores: Mapping[str, float], footage: Callable[[str], SequenceFootage], album: Album
) -> list[Path]:
    """Films of the best, the median and the worst sequence, what was found beside the truth; their paths.

    Args:
        ending: of the names of the files, before ``.mp4``. scores: of each sequence, J for one. footage: of a name in them.
        album: the masks that were found; sequences without any are passed over.
    """
    written = []
    kept = {name: score for name, score in scores.items() if name in album}
    for word, name in worth_a_look(kept).items():
        shown = footage(name)
        path = folder / f"{word}-{name.replace('/', '_')}{ending}.mp4"
        truth = map(shown.truth, itertools.count())
        write_film(path, beside_truth(shown.frames(), album.masks(name), truth), shown.fps, crf=CRF_SMALL)
        written.append(path)
    return written
