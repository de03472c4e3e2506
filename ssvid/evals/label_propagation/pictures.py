"""What a network followed, beside the results: masks as PNG for other evaluators, and films of a few sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssvid.evals.label_propagation.drawing import trails
from ssvid.evals.label_propagation.films import CRF_SMALL, beside_truth, worth_a_look, write_film
from ssvid.evals.label_propagation.measures import Kept, TruthVideo
from ssvid.evals.label_propagation.saving import PALETTE, label_folder
from ssvid.train.run_folder import next_free

_FPS = 25.0  # of a film of frames whose rate is unknown


def write_masks(folder: Path, videos: Sequence[TruthVideo], kept: Mapping[int, Kept]) -> Path | None:
    """``SEQUENCE/00000.png`` of each video with masks, below a folder that is new; None where there is none.

    That is what ``davis2017-evaluation`` takes as ``--results_path``. A folder that is there already is left alone: the
    next free number is taken.
    """
    with_masks = [place for place, one in kept.items() if one.packed]
    if not with_masks:
        return None
    root = next_free(folder.parent, folder.name)
    for place in with_masks:
        masks = videos[place].truth.masks
        palette = (masks.palette if masks is not None else None) or PALETTE
        with label_folder(root / videos[place].name.replace("/", "_"), palette) as written:
            for labels_HW in kept[place].labels():
                written.add(labels_HW)
    return root


def write_films(
    folder: Path, ending: str, videos: Sequence[TruthVideo], kept: Mapping[int, Kept], scores: Mapping[str, float]
) -> list[Path]:
    """``tracked-best.mp4``, ``-median`` and ``-worst``: what was found beside the truth, or points with their trails.

    Args:
        scores: of the sequences, by their names, of which the best, the median and the worst are shown.
    """
    places = {videos[place].name: place for place in kept}
    films = []
    for word, name in worth_a_look({name: score for name, score in scores.items() if name in places}).items():
        video, found = videos[places[name]], kept[places[name]]
        path = folder / f"tracked{ending}-{word}-{name.replace('/', '_')}.mp4"
        write_film(path, _pictures(video, found), video.row.fps or _FPS, crf=CRF_SMALL)
        films.append(path)
    return films


def _pictures(video: TruthVideo, found: Kept) -> Iterator[np.ndarray]:
    if found.packed:
        masks = video.truth.masks
        truth = (masks.at(frame) if masks is not None else None for frame in range(len(found.packed)))
        yield from beside_truth(video.frames(), found.labels(), truth)
    elif found.points is not None:
        points_TQ2, seen_TQ = found.points
        for frame, frame_HWC in enumerate(video.frames()):
            yield trails(frame_HWC, points_TQ2[: frame + 1], seen_TQ[: frame + 1])
