"""Label propagation as an evaluation: what is known of one frame is carried through a video by a frozen network's features.

Beside the network stand labels that do not move, raw pixels in the place of features, and chained optical flow. Equations
and protocols: docs/tracking.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssvid.backbones import Backbone
from ssvid.data.contents import units_of
from ssvid.data.manifest import VideoRow, row_id
from ssvid.data.truth import read_truth, truth_sha256
from ssvid.errors import DataError, DecodeError, SsvidError, name_some
from ssvid.evals.contract import Became, Evaluation, LabeledData, Number, Seen, Subject, Tools, register_evaluation
from ssvid.evals.label_propagation.baselines import Carrier, CopiedLabels, FlowChain, PixelPatches, Stand
from ssvid.evals.label_propagation.following import Follower, with_trained_stage
from ssvid.evals.label_propagation.measures import MEASURES, Kept, Measure, Scored, TruthVideo
from ssvid.evals.label_propagation.pictures import write_films, write_masks
from ssvid.features.maps import with_stride
from ssvid.features.propagation_protocol import PropagationProtocol, check_protocol
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.store import Listed
from ssvid.progress import every_tenth
from ssvid.results.rows import ResultRow
from ssvid.types import RGB
from ssvid.video.optical_flow import require_opencv
from ssvid.weights.checkpoints import weights_sha256

_LEAST_FRAMES = 3  # the given one, one that is scored, and the last, which DAVIS leaves out


@dataclass(frozen=True)
class _Followed:
    """What one subject comes to. numbers: of each measure in turn."""

    numbers: tuple[Scored, ...]
    became: Became


@register_evaluation("label_propagation")
class LabelPropagation(Evaluation):
    """How far masks, parts, joints and points of one frame are followed by the likeness of features: J&F, mIoU, PCK, TAP-Vid."""

    Config = PropagationProtocol
    needs = "maps"
    modalities = (RGB,)
    needs_labels = False
    metrics = ("davis_", "davis2016_", "miou", "pck@", "tapvid_")
    settings_name = "track_protocol"

    def __init__(self, *, draws: bool = True) -> None:
        self._draws = draws
        self._known: dict[Any, tuple[list[TruthVideo], str]] = {}
        self._flow_is_missing = ""
        self._kept: dict[int, Kept] = {}
        self._kept_of = ""

    def check(self, config: PropagationProtocol, num_train: int | None = None) -> None:
        check_protocol(config, "track.")

    def check_data(self, network: Backbone, data: LabeledData, config: PropagationProtocol, tools: Tools) -> None:
        self.check_rows(data, config)

    def check_rows(self, data: LabeledData, config: PropagationProtocol) -> None:
        """Raise DataError where what is known of the videos is missing or does not fit them; reads all masks."""
        self._videos(data, config)

    def prepare(
        self, features: FeatureProtocol, config: PropagationProtocol, network: Backbone, tools: Tools
    ) -> tuple[FeatureProtocol, PropagationProtocol]:
        """The stage by its name: the deepest that was trained where none is named."""
        return features, with_trained_stage(config, network, features)

    def baselines(
        self, wanted: Any, network: Backbone, features: FeatureProtocol, config: PropagationProtocol, tools: Tools
    ) -> list[Subject]:
        subjects = []
        if getattr(wanted, "identity", True):
            subjects.append(Subject("identity", CopiedLabels(), features))
        if getattr(wanted, "pixels", True):
            finer = with_stride(network, config.stride_px, config.stage)
            patches = PixelPatches(finer.info.stage(config.stage).stride_space)
            subjects.append(Subject("raw pixels", patches, features))
        if getattr(wanted, "flow", True):
            try:
                require_opencv()
                subjects.append(Subject("optical flow", FlowChain(), features))
            except SsvidError as error:
                self._flow_is_missing = f"no row of optical flow: {error}"
                tools.say(self._flow_is_missing)
        return subjects

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: PropagationProtocol, tools: Tools
    ) -> Iterator[Number]:
        """J and F, mIoU, PCK, TAP-Vid: whatever ``measure`` asks for. chance: what labels that do not move come to."""
        videos, truth_hash = self._videos(data, config)
        carrier, more = _carrier(subject.network, config, tools)
        is_first = self._draws and not self._kept_of
        self._kept_of = self._kept_of or subject.name
        if is_first:
            found = self._follow(subject.name, carrier, videos, config, tools, self._kept)
        else:
            found = self._once(subject, carrier, data, config, tools)
        resting = replace(subject, name="labels that do not move", network=CopiedLabels())
        still = self._once(resting, CopiedLabels.carrier, data, config, tools)
        chances = {number.metric: number for number in still.numbers}
        notes = [self._flow_is_missing] * bool(self._flow_is_missing)
        for number in found.numbers:
            yield Number(
                number.metric,
                number.values_U,
                float(np.mean(chances[number.metric].values_U)),
                {"truth_sha256": truth_hash, "maps": more, **number.more},
                notes,
                number.title,
                (Became(), found.became),
                number.units,
            )

    def draw(
        self,
        folder: Path,
        ending: str,
        rows: Sequence[ResultRow],
        seen: Seen,
        data: LabeledData,
        config: PropagationProtocol,
    ) -> list[Path]:
        """Films of the best, the median and the worst sequence; and the masks of all as PNG, for other evaluators."""
        videos, _ = self._videos(data, config)
        write_masks(folder / f"masks{ending}", videos, self._kept)
        known = [row.context["per_sequence"] for row in rows if row.context.get("per_sequence")]
        scores: Mapping[str, float] = known[0] if known else {}
        return write_films(folder, ending, videos, self._kept, scores)

    def _videos(self, data: LabeledData, config: PropagationProtocol) -> tuple[list[TruthVideo], str]:
        """The videos with what is known of them, and a hash of it; read and checked once."""
        key = (data.manifest.root, data.test, config)
        if key not in self._known:
            videos = videos_of(data)
            if not measures_of(config, videos):
                raise DataError(_nothing_known(videos, config))
            digest = hashlib.sha256("".join(truth_sha256(video.truth) for video in videos).encode())
            _check_frames(config, videos)
            self._known[key] = [video.as_scored(config) for video in videos], digest.hexdigest()
        return self._known[key]

    def _once(
        self, subject: Subject, carrier: Carrier, data: LabeledData, config: PropagationProtocol, tools: Tools
    ) -> _Followed:
        """What a network comes to; of several seeds once, where it is the same for all."""
        info, weights = subject.network.info, weights_sha256(subject.network.state_dict())
        whose = info.name, info.stages, str(info.options), weights
        key = type(self), *whose, data.manifest.root, data.test, config, tools.device
        videos, _ = self._videos(data, config)
        return tools.once(key, lambda: self._follow(subject.name, carrier, videos, config, tools))

    def _follow(
        self,
        name: str,
        carrier: Carrier,
        videos: Sequence[TruthVideo],
        config: PropagationProtocol,
        tools: Tools,
        kept: dict[int, Kept] | None = None,
    ) -> _Followed:
        told, lost = every_tenth(tools.say, f"{name}: videos"), {}
        measures = measures_of(config, videos)
        found: dict[Measure, dict[int, Any]] = {measure: {} for measure in measures}
        for place, video in enumerate(videos):
            fitting = [measure for measure in measures if measure.fits(video.truth)]
            one_by_one = carrier.reading_once() if isinstance(carrier, Follower) and len(fitting) > 1 else carrier
            for measure in fitting:
                if place not in lost:
                    try:
                        one = Kept(video.size_px) if kept is not None else None
                        found[measure][place] = measure.follow(video, one_by_one, one)
                        if kept is not None and one is not None:
                            kept.setdefault(place, one)
                    except DecodeError as error:
                        lost[place] = str(error)
                if place in lost:
                    found[measure][place] = measure.lost(video)
            told(place + 1, len(videos))
        numbers = [
            scored
            for measure, of in found.items()
            for scored in measure.numbers([videos[place] for place in of], list(of.values()))
        ]
        unreadable = tuple(Listed(row_id(videos[place].row), reason) for place, reason in lost.items())
        return _Followed(tuple(numbers), Became(unreadable))


def _carrier(network: Backbone, config: PropagationProtocol, tools: Tools) -> tuple[Carrier, dict[str, Any]]:
    """Who carries the labels, and what is to be known of the maps that are compared."""
    if isinstance(network, Stand):
        return network.carrier, {}
    if isinstance(network, PixelPatches):
        config = replace(config, stage="", stride_px=0)
    follower = Follower.of(network, config, tools.device)
    return follower, {"stage": follower.stage, "stride_px": follower.stride_px}


def measures_of(config: PropagationProtocol, videos: Sequence[TruthVideo]) -> list[Measure]:
    """What is measured: what the protocol asks for, or all that fits what is known of any video."""
    wanted = [kind(config) for kind in MEASURES if config.measure in ("all", kind.kind)]
    return [measure for measure in wanted if any(measure.fits(video.truth) for video in videos)]


def videos_of(data: LabeledData) -> list[TruthVideo]:
    """The test videos with what is known of their frames.

    Raises:
        DataError: nothing is known of one, or what is known does not fit the video.
    """
    without = [row_id(row) for row in data.test if not row.truth]
    if without:
        raise DataError(
            f"nothing is known of the frames of {len(without)} of {len(data.test)} videos ({name_some(without)}): tracking needs "
            "masks, joints or tracks to score. Take a data set that has them (data.name=davis, jhmdb, vip, tapvid), or a table "
            "with the column truth, which names a folder of masks for each video."
        )
    names, root = _names(data.test), data.manifest.root
    firsts: dict[str, str] = {}
    groups = [firsts.setdefault(unit, name) for unit, name in zip(units_of(data.test), names, strict=True)]
    return [
        TruthVideo(root, row, read_truth(root, row), name, group, (row.height, row.width))
        for row, name, group in zip(data.test, names, groups, strict=True)
    ]


def _check_frames(config: PropagationProtocol, videos: Sequence[TruthVideo]) -> None:
    """Raise DataError where masks, joints or points are known of videos that are all too short to score."""
    longest = max((video.row.window_frames for video in videos), default=0)
    if longest < _LEAST_FRAMES:
        raise DataError(
            f"no sequence has a frame to score: the longest of {len(videos)} videos has {longest} frame{'s' * (longest != 1)}, and "
            f"labels are given in the first and, for masks, not scored in the last. Use videos of {_LEAST_FRAMES} frames or more."
        )


def _names(rows: Sequence[VideoRow]) -> list[str]:
    """What sequences are called: the last part of their paths without its ending, or the whole where two would be the same."""
    short = [PurePosixPath(row_id(row)).stem for row in rows]
    return short if len(set(short)) == len(short) else [row_id(row) for row in rows]


def _nothing_known(videos: Sequence[TruthVideo], config: PropagationProtocol) -> str:
    kinds = {"masks": "objects or parts", "joints": "joints", "tracks": "points"}
    known = {kind for video in videos for kind in kinds if getattr(video.truth, kind) is not None}
    fitting = " or ".join(f"track.measure={kinds[kind].partition(' ')[0]}" for kind in sorted(known))
    return (
        f"track.measure ({config.measure}) cannot be measured: of the {len(videos)} videos {' and '.join(sorted(known))} are known. "
        f"Set {fitting or 'another data set'}, or track.measure=all."
    )
