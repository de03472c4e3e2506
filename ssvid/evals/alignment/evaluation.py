"""Alignment as an evaluation: do the features of a frozen network bring together the same moments of different videos?

Beside the network always stands an embedder that knows nothing but the place in the video. Equations and protocol:
docs/alignment.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ssvid.backbones import Backbone
from ssvid.bounds import AtLeast, NotEmpty, OneOf, Share, check, told
from ssvid.data.contents import units_of
from ssvid.data.manifest import row_id
from ssvid.errors import DataError, RecipeError, name_some
from ssvid.evals.alignment import measures
from ssvid.evals.alignment.measures import Moments
from ssvid.evals.alignment.page import Aligned, write_alignments
from ssvid.evals.alignment.reading import POSITION, PositionOnly, SeenMoments, moment_frames, phases_of, read_moments
from ssvid.evals.contract import Evaluation, LabeledData, Number, Seen, Subject, Tools, Units, register_evaluation
from ssvid.evals.histograms import histogram_subject
from ssvid.evals.measuring import RANDOM_FORM
from ssvid.features.protocol import NORMALIZATIONS, FeatureProtocol, resolve_feature_protocol
from ssvid.intervals import grouped_mean_interval, pseudo_values
from ssvid.progress import every_tenth
from ssvid.results.rows import ResultRow
from ssvid.settings import IDLE

_LEAST_MOMENTS = 2


@dataclass(frozen=True)
class AlignmentConfig:
    """What is asked of the moments of videos.

    step_frames: from one moment of a video to the next. normalization: of vectors before they are compared: "none" (the paper),
        "l2", "standard" (each column to mean 0, deviation 1 on train).
    label_fractions: shares of the training videos of each class whose phases a classifier learns from, the first ones of the
        table. ks: neighbors of AP@K.
    num_shown: pairs of test videos on the page, of as many classes as there are. seed: by which they are drawn.
    """

    step_frames: Annotated[int, AtLeast(1)] = 2
    normalization: Annotated[str, OneOf(*NORMALIZATIONS)] = "none"
    label_fractions: Annotated[tuple[float, ...], Share, NotEmpty] = (0.1, 0.5, 1.0)
    ks: Annotated[tuple[int, ...], AtLeast(1), NotEmpty] = (5, 10, 15)
    num_shown: Annotated[int, AtLeast(0)] = field(default=4, metadata=IDLE)
    seed: Annotated[int, AtLeast(0)] = field(default=0, metadata=IDLE)


@dataclass(frozen=True)
class _Both:
    """The moments of train and of test."""

    train: SeenMoments
    test: SeenMoments


@register_evaluation("alignment")
class Alignment(Evaluation):
    """Kendall's tau, phase classification, phase progression and AP@K of the moments of videos; a page of two videos aligned."""

    Config = AlignmentConfig
    needs = "maps"
    verb = "probe"
    metrics = ("alignment_",)
    heldout_name = "train_tau"

    def __init__(self) -> None:
        self._phases: dict[Any, list[list[np.ndarray]]] = {}
        self._seen: dict[str, _Both] = {}

    def check(self, config: AlignmentConfig, num_train: int | None = None) -> None:
        check(config, "evaluation.options.")

    def check_data(self, network: Backbone, data: LabeledData, config: AlignmentConfig, tools: Tools) -> None:
        self._known(data)
        if max(np.unique([row.label for row in data.test], return_counts=True)[1]) < 2:
            raise DataError(
                f"alignment compares videos of one class, and each of the {len(data.test)} test videos has a class of its own. "
                "Add test videos of the same classes."
            )

    def prepare(
        self, features: FeatureProtocol, config: AlignmentConfig, network: Backbone, tools: Tools
    ) -> tuple[FeatureProtocol, AlignmentConfig]:
        """One clip for each moment.

        Raises:
            RecipeError: the features are others.
        """
        if features.num_clips not in (1, FeatureProtocol.num_clips):
            raise RecipeError(
                told("features.num_clips", features.num_clips, "must be 1: each moment has a clip of its own", 1)
            )
        return replace(features, num_clips=1), config

    def has_two_random_forms(self, config: AlignmentConfig) -> bool:
        return True

    def baselines(
        self, wanted: Any, network: Backbone, features: FeatureProtocol, config: AlignmentConfig, tools: Tools
    ) -> list[Subject]:
        """The place in the video, always; histograms of colors and changes where they are wanted."""
        found = [Subject(POSITION, PositionOnly(), replace(features, stages="none"))]
        if getattr(wanted, "histograms", True) and features.num_frames > 1 and network.info.in_channels == 3:
            found.append(histogram_subject(features, network.info))
        return found

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: AlignmentConfig, tools: Tools
    ) -> Iterator[Number]:
        """Tau, phases, progression and AP@K, each of the classes by itself."""
        both = self._seen[subject.name] = self._read(subject, data, config, tools)
        shown = resolve_feature_protocol(subject.protocol, subject.network.info, subject.stage)
        about = {"truth_sha256": self._truth_sha256(data), "feature_protocol": asdict(shown)}
        for number in _numbers(both, data, config):
            yield number._replace(more={**about, **number.more}, seen=(both.train.became, both.test.became))

    def heldout(
        self,
        rows: Sequence[ResultRow],
        subject: Subject,
        seen: Seen,
        data: LabeledData,
        config: AlignmentConfig,
        tools: Tools,
    ) -> float:
        """Mean tau among the training videos: nothing is learned for it, so that all of train may say it."""
        labels = [row.label for row in data.train]
        return float(np.nanmean(_over_classes(self._seen[subject.name].train.of, labels, _taus)))

    def draw(
        self,
        folder: Path,
        ending: str,
        rows: Sequence[ResultRow],
        seen: Seen,
        data: LabeledData,
        config: AlignmentConfig,
    ) -> list[Path]:
        """A page of pairs of test videos, one played beside the moments of the other that are nearest."""
        form = rows[0].context.get("better_form", {}).get("form")  # of two random networks
        both = self._seen[rows[0].name if form is None else f"{RANDOM_FORM}{form}"]
        pairs = [
            _aligned(rows[0], both.test.of, one, other, data, config) for one, other in _drawn_pairs(both, data, config)
        ]
        return write_alignments(folder / f"alignment{ending}", pairs, rows, seed=config.seed) if pairs else []

    def _read(self, subject: Subject, data: LabeledData, config: AlignmentConfig, tools: Tools) -> _Both:
        sides = []
        for name, rows, phases in zip(("training", "test"), (data.train, data.test), self._known(data), strict=True):
            said = every_tenth(tools.say, f"{subject.name}: {name} videos")
            sides.append(read_moments(subject, data.manifest, rows, phases, config.step_frames, tools, said))
        for side, rows in zip(sides, (data.train, data.test), strict=True):
            _require_moments(side, rows, subject.protocol)
        both = _Both(*sides)
        return both if isinstance(subject.network, PositionOnly) else _normalized(both, config.normalization)

    def _known(self, data: LabeledData) -> list[list[np.ndarray]]:
        """The phases of train and of test, read and checked once."""
        key = (data.manifest.root, data.train, data.test)
        if key not in self._phases:
            sides = [phases_of(data.manifest, rows) for rows in (data.train, data.test)]
            missing = [
                row_id(row)
                for rows, phases in zip((data.train, data.test), sides, strict=True)
                for row, known in zip(rows, phases, strict=True)
                if known is None
            ]
            if missing:
                raise DataError(
                    f"the phases of {len(missing)} of {len(data.train) + len(data.test)} videos are not known "
                    f"({name_some(missing)}): alignment is scored by them. Make videos that have them (ssvid data synth OUT --motions "
                    "actions), or name in the table's column truth an .npz with the array phase for each video (docs/alignment.md)."
                )
            self._phases[key] = [[one for one in side if one is not None] for side in sides]
        return self._phases[key]

    def _truth_sha256(self, data: LabeledData) -> str:
        digest = hashlib.sha256()
        for phase_T in (one for side in self._known(data) for one in side):
            digest.update(f"{len(phase_T)} ".encode() + phase_T.astype("<i8").tobytes())
        return digest.hexdigest()


# ---- the numbers


def _numbers(both: _Both, data: LabeledData, config: AlignmentConfig) -> Iterator[Number]:
    """All of them but what became of the videos."""
    labels, groups = [row.label for row in data.test], units_of(data.test)
    in_company = np.array([labels.count(label) > 1 for label in labels])
    units = [row_id(row) for row in data.test], groups, in_company
    tau_N = _over_classes(both.test.of, labels, _taus)
    yield _paired("alignment_tau", tau_N, 0.0, units, low=-1.0, title="tau")
    for share in sorted(config.label_fractions, reverse=True):
        yield _phases_of_few(both, data, share)
    found = _progress(both, data, groups)
    if found is not None:
        yield found
    chance = float(np.nanmean(_over_classes(both.test.of, labels, _blind_precisions)))
    for k in config.ks:
        precision_N = _over_classes(both.test.of, labels, partial(measures.precisions, k=k))
        yield _paired(f"alignment_ap@{k}", precision_N, chance, units, low=0.0, title=f"AP@{k}")


def _over_classes(
    of: Mapping[int, Moments], labels: Sequence[str], measure: Callable[[list[Moments]], np.ndarray]
) -> np.ndarray:
    """What a measure says of each video among those of its class (N,); NaN where it was not read or stands alone."""
    values_N = np.full(len(labels), math.nan)
    for places in measures.by_class(labels).values():
        mine = [int(i) for i in places if i in of]
        values_N[mine] = measure([of[i] for i in mine])
    return values_N


def _taus(videos: list[Moments]) -> np.ndarray:
    return measures.taus([one.vectors_ND for one in videos])


def _blind_precisions(videos: list[Moments]) -> np.ndarray:
    """AP of neighbors drawn at random: where as many as all others are taken."""
    return measures.precisions(videos, k=sum(len(one.times_N) for one in videos))


def _paired(
    metric: str,
    values_N: np.ndarray,
    chance: float,
    units: tuple[Sequence[str], Sequence[str], np.ndarray],
    *,
    low: float,
    title: str,
) -> Number:
    """A number over the videos that have another one of their class; an unreadable one counts as 0.

    units: names and groups of all test videos, and which of them are in company.
    """
    kept = [int(i) for i in np.flatnonzero(units[2])]
    ids, groups = ([names[i] for i in kept] for names in units[:2])
    alone = [name for name, is_kept in zip(units[0], units[2], strict=True) if not is_kept]
    notes = [f"alone in their class, not in {title}: {len(alone)} ({name_some(alone)})"] * bool(alone)
    values_N = np.nan_to_num(values_N[kept])
    interval = grouped_mean_interval(values_N, groups_N=np.array(groups), low=low)
    return Number(
        metric, values_N, chance, notes=notes, title=title, units=Units(ids, groups, "videos", "groups", interval)
    )


def _phases_of_few(both: _Both, data: LabeledData, share: float) -> Number:
    """Phase classification by a machine for each class, which has learned from the first videos of its class."""
    train, test = ([row.label for row in rows] for rows in (data.train, data.test))
    right_N, chances = np.zeros(len(test)), np.zeros(len(test))
    num_learned = 0
    for label, places in measures.by_class(test).items():
        whole = [int(i) for i in measures.by_class(train)[label] if i in both.train.of]
        few = whole[: max(1, math.ceil(round(share * len(whole), 9)))]
        mine = [int(i) for i in places if i in both.test.of]
        if few and mine:
            sides = [both.train.of[i] for i in few], [both.test.of[i] for i in mine]
            right_N[mine], num_learned = measures.phase_accuracies(*sides), num_learned + len(few)
            chances[mine] = measures.phase_chance(*sides)
    metric = "alignment_phase" if share == 1 else f"alignment_phase_of_{100 * share:g}%"
    title = "phase" if share == 1 else f"phase, {100 * share:g} % of labels"
    more = {"label_fraction": share, "num_learned_from": num_learned}
    return Number(metric, right_N, float(chances.mean()), more, title=title)


def _progress(both: _Both, data: LabeledData, groups: Sequence[str]) -> Number | None:
    """Phase progression: R^2 of a regression for each event of each class, mean over events and then over classes."""
    train, test = ([row.label for row in rows] for rows in (data.train, data.test))
    parts = []
    for label, places in measures.by_class(test).items():
        learned = [both.train.of[int(i)] for i in measures.by_class(train)[label] if i in both.train.of]
        mine = np.array([int(i) for i in places if i in both.test.of], dtype=np.int64)
        if learned and len(mine):
            parts.append((mine, measures.progression(learned, [both.test.of[int(i)] for i in mine])))
    if not any(len(part.errors_EV) for _, part in parts):
        return None

    def statistic(chosen: np.ndarray) -> float:
        of_classes = [measures.r_squared(part, np.flatnonzero(np.isin(mine, chosen))) for mine, part in parts]
        return float(np.nanmean([one for one in of_classes if not math.isnan(one)] or [0.0]))

    values_N = pseudo_values(statistic, len(test))
    interval = grouped_mean_interval(values_N, groups_N=np.array(groups))
    units = Units([row_id(row) for row in data.test], groups, "videos", "groups", interval)
    return Number("alignment_progress", values_N, 0.0, title="progress R^2", units=units)


# ---- what it rests on


def _normalized(both: _Both, how: str) -> _Both:
    """Both sides with their vectors normalized; by what train says where that is needed."""
    if how == "none":
        return both
    known = np.concatenate([one.vectors_ND for one in both.train.of.values()])
    mean_D, deviation_D = known.mean(axis=0), known.std(axis=0)

    def changed(one: Moments) -> Moments:
        if how == "standard":
            return one._replace(vectors_ND=(one.vectors_ND - mean_D) / np.where(deviation_D > 0, deviation_D, 1))
        lengths_N1 = np.linalg.norm(one.vectors_ND, axis=1, keepdims=True)
        return one._replace(vectors_ND=one.vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1))

    return _Both(
        *(side._replace(of={i: changed(one) for i, one in side.of.items()}) for side in (both.train, both.test))
    )


def _require_moments(side: SeenMoments, rows: Sequence[Any], features: FeatureProtocol) -> None:
    """Raise DataError where no video could be read, or one is too short to have moments that could come in an order."""
    if not side.of:
        first = side.became.unreadable[0]
        raise DataError(f"none of the {len(rows)} videos could be read, the first is {first.id}: {first.reason}")
    short = [row_id(rows[i]) for i, moments in side.of.items() if len(moments.times_N) < _LEAST_MOMENTS]
    if short:
        raise DataError(
            f"{len(short)} of {len(rows)} videos are too short for {_LEAST_MOMENTS} moments, each with {features.num_frames} frames, "
            f"one in {features.stride_frames} ({name_some(short)}). Set features.num_frames, features.stride_frames or "
            "evaluation.options.step_frames lower, or take these videos out."
        )


def _aligned(
    row: ResultRow, of: Mapping[int, Moments], one: int, other: int, data: LabeledData, config: AlignmentConfig
) -> Aligned:
    """What the page needs of two test videos."""
    clip = row.context["feature_protocol"]
    shown = FeatureProtocol(num_frames=int(clip["num_frames"]), stride_frames=int(clip["stride_frames"]))
    labeled, played = data.test[one], data.test[other]
    return Aligned(
        data.manifest,
        labeled,
        played,
        moment_frames(labeled, shown, config.step_frames),
        moment_frames(played, shown, config.step_frames),
        of[one],
        of[other],
    )


def _drawn_pairs(both: _Both, data: LabeledData, config: AlignmentConfig) -> Iterator[tuple[int, int]]:
    """Places of pairs of test videos, one of each class in turn: the one that is labeled, and the one that plays."""
    rng = np.random.default_rng([config.seed, len(data.test)])
    classes = measures.by_class([row.label for row in data.test])
    several = [mine for places in classes.values() if len(mine := [int(i) for i in places if i in both.test.of]) > 1]
    for number in range(config.num_shown if several else 0):
        one, other = rng.choice(several[number % len(several)], 2, replace=False)
        yield int(one), int(other)
