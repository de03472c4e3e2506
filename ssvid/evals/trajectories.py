"""The trajectory baseline: dense trajectories, Fisher vectors and a linear SVM in the place of a network.

What was best before networks learned motion: Wang et al. (IJCV 2013), Wang and Schmid (ICCV 2013), and the page on trajectories.
The codebook (PCA and mixtures) is fitted on training videos alone, for each split anew.

Differs: at the size of a laptop. Fisher vectors are over at most 1000 tracks of a video, and mixtures have one Gaussian for each
1000 descriptors that they are fitted on, 64 at most, where the paper has 256 on 256,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from ssvid.data.contents import units_of
from ssvid.data.manifest import row_id
from ssvid.errors import name_some
from ssvid.evals.contract import LabeledData, Seen, Subject, Tools
from ssvid.evals.hand_made import Fit, HandMade, Predict
from ssvid.evals.histograms import as_histograms
from ssvid.features.descriptors import MOST_FRAMES, MOST_PX, TRACKS_KEPT, VERSION, Measured, measured, shelf
from ssvid.features.extracting import room_for
from ssvid.features.fisher import Codebook, fit_codebook
from ssvid.features.kept import Place, read_place
from ssvid.features.protocol import FeatureProtocol, decoder_of
from ssvid.features.store import Features, Listed, columns_of, nothing_read
from ssvid.features.trajectories import DESCRIPTORS, NUM_VALUES
from ssvid.progress import every_tenth
from ssvid.video.optical_flow import require_opencv

TRAJECTORIES = "trajectories"
DESCRIPTORS_SAMPLED = 64_000  # of all training videos, for the codebook
DESCRIPTORS_OF_A_GAUSSIAN, MOST_GAUSSIANS = 1000, 64


class Trajectories(HandMade):
    """Fisher vectors of dense trajectories in the place of a network: one of each descriptor, each of length 1, side by side."""

    about = "dense trajectories, Fisher vectors"
    costs = (1.0, 10.0, 100.0, 1000.0)

    def __init__(self) -> None:
        super().__init__(TRAJECTORIES, NUM_VALUES)

    def see(self, subject: Subject, data: LabeledData, tools: Tools) -> Seen:
        """The Fisher vectors of all videos, by a codebook of the training videos. Descriptors are kept in ``cache_dir``.

        Raises:
            SsvidError: OpenCV is not installed. DataError, DecodeError: as ``read_features``.
        """
        sides = (("train", data.train), ("test", data.test))
        with shelf(tools.cache_dir) as kept:
            train, test = (
                measured(
                    data.manifest, rows, subject.protocol, kept, every_tenth(tools.say, f"trajectories, {side} videos")
                )
                for side, rows in sides
            )
            tools.say("trajectories: codebook and Fisher vectors")
            codebooks, num_sampled = codebooks_of([train.places[i] for i in sorted(train.places)], tools.seed)
            learned, scored = (encoded(side, codebooks, tools.cache_dir) for side in (train, test))
        notes = (_note("training", train), _note("test", test))
        return Seen(learned, scored, tuple(filter(None, notes)), _facts(subject.protocol, codebooks, num_sampled))

    def machine(self, x_MD: np.ndarray, y_N: np.ndarray, seed: int) -> Fit:
        """In its dual form: vectors are long, and their products are all that it needs."""
        kernel_MN = (x_MD @ x_MD[: len(y_N)].T).astype(np.float64)

        def fit(learned_from: np.ndarray, cost: float) -> Predict:
            svm = OneVsRestClassifier(SVC(C=cost, kernel="precomputed"))
            svm.fit(kernel_MN[np.ix_(learned_from, learned_from)], y_N[learned_from].astype(str))
            return lambda asked: np.asarray(svm.predict(kernel_MN[np.ix_(asked, learned_from)]))

        return fit


def trajectory_subject(protocol: FeatureProtocol) -> Subject:
    """The trajectories that stand beside networks: of all frames, whole, whatever clips a network is shown."""
    return Subject(TRAJECTORIES, Trajectories(), replace(as_histograms(protocol), frames="video", defects=()))


# ---- vectors


Codebooks = Mapping[str, Codebook | None]  # of each descriptor; None where there is nothing to fit it on


def num_gaussians(num_descriptors: int) -> int:
    """A power of two, so that each has enough descriptors: of 32,000 to 63,999 there are 32."""
    enough = min(MOST_GAUSSIANS, num_descriptors // DESCRIPTORS_OF_A_GAUSSIAN)
    return 1 << max(enough.bit_length() - 1, 0)


def codebooks_of(places: Sequence[Place], seed: int) -> tuple[Codebooks, int]:
    """The codebook of each descriptor, and on how many tracks they were fitted: as many of each video, drawn by the seed."""
    filled = [place for place in places if place.shape[0]]
    each = -(-DESCRIPTORS_SAMPLED // max(len(filled), 1))
    drawn = [np.empty((0, NUM_VALUES), np.float32)]
    for number, place in enumerate(filled):
        values_ND = read_place(place)
        order = np.random.default_rng([seed, number]).permutation(len(values_ND))[:each]
        drawn.append(values_ND[np.sort(order)])
    values_ND = np.concatenate(drawn)
    if len(values_ND) < 2:
        return dict.fromkeys(DESCRIPTORS), len(values_ND)
    num = num_gaussians(len(values_ND))
    books = {name: fit_codebook(values_ND[:, slice(*columns)], num, seed) for name, columns in DESCRIPTORS.items()}
    return books, len(values_ND)


def encoded(side: Measured, codebooks: Codebooks, cache_dir: Path | None) -> Features:
    """The Fisher vectors of one side, those of each descriptor side by side; zeros where no track was found.

    Raises:
        DataError: no video could be read.
    """
    unreadable = tuple(Listed(row_id(side.rows[i]), side.lost[i]) for i in sorted(side.lost))
    if not side.places:
        raise nothing_read(len(side.rows), unreadable)
    columns = columns_of({name: 1 if book is None else book.width for name, book in codebooks.items()})
    values_ND = room_for(len(side.rows), max(end for _, end in columns.values()), cache_dir)
    for i, place in side.places.items():
        found_ND = read_place(place)
        for name, book in codebooks.items():
            vector = 0.0 if book is None else book.encode(found_ND[:, slice(*DESCRIPTORS[name])])
            values_ND[i, slice(*columns[name])] = vector
    ids, labels = tuple(row_id(row) for row in side.rows), tuple(row.label for row in side.rows)
    decoders = dict(Counter(decoder_of(side.rows[i], side.protocol) for i in side.places))
    return Features(values_ND, ids, labels, tuple(units_of(side.rows)), columns, unreadable, decoders=decoders)


def _note(name: str, side: Measured) -> str:
    if not (empty := side.empty):
        return ""
    return f"{name} videos without a trajectory, whose vector is zero: {len(empty)} ({name_some(empty, 5)})"


def _facts(protocol: FeatureProtocol, codebooks: Codebooks, num_sampled: int) -> dict[str, Any]:
    """What the vectors depend on: the clips of a network they do not."""
    book = next(iter(codebooks.values()))
    return {
        "feature_protocol": {"decoder": protocol.decoder},
        "trajectories": {
            "version": VERSION,
            "opencv": require_opencv().__version__,
            "most_px": MOST_PX,
            "most_frames": MOST_FRAMES,
            "tracks_kept": TRACKS_KEPT,
            "descriptors_sampled": num_sampled,
            "num_gaussians": 0 if book is None else len(book.gaussians.weights_K),
        },
    }
