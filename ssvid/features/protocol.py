"""What an evaluation number depends on besides the weights and the videos: plain values, legal ones on the fields.

A protocol is *resolved* against a backbone before the first video is read: every automatic value gets its number or
name, and the resolved protocol stands beside the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Protocol

from ssvid.bounds import AtLeast, BelowOne, Inside, NotEmpty, OneOf, Positive, UpToHalf, check, told
from ssvid.errors import RecipeError, did_you_mean
from ssvid.settings import IDLE, PLACE, ROUNDING
from ssvid.types import POOLS, RGB_CHANNELS
from ssvid.video.decoders.choice import resolve_decoder

if TYPE_CHECKING:
    from ssvid.backbones import BackboneInfo
    from ssvid.data.manifest import VideoRow

NORMALIZATIONS = ("standard", "l2", "none")
BATCH_NORMALIZATION = "l2_batch"  # normalized over each batch, so only a head that sees batches can have it
FRAMES = ("video", "single_frame", "shuffled")
DEFECTS = ("drop_last", "color_jitter")
FLOW_READER = "flow "  # what stands in the place of a decoder's name, before the settings of the flow


@dataclass(frozen=True)
class FeatureProtocol:
    """How a video becomes one frozen feature vector.

    num_frames, stride_frames: of each clip. num_clips: spread evenly over the video; their vectors are averaged.
    resize_px: short side after resizing; 0 is 8/7 of the crop. crop_px: side of the center crop; 0 is the backbone's
        own ``size``.
    stages: "all" (every stage down to the deepest trained one, side by side), "trained" (the deepest trained one), or
        names joined by commas. untrained_stage: allow a stage deeper than the deepest trained one.
    pool: "avg"; "avgmax" for mean and maximum over T, H, W side by side; "max1x2x2" for the maxima of blocks of 2 x 2
        cells, flattened; "frames" for the means over H, W, frame after frame (``ssvid.backbones.pool_map``).
    frames: "video"; "single_frame" repeats the middle frame of each clip, "shuffled" puts its frames in a random order,
        the same for every network: what either loses is owed to time.
    defects: of released scripts, to compare with them: "drop_last" leaves out the videos of train and of test that do not
        fill a batch of 8, "color_jitter" changes the colors of three clips in ten, of test videos too.
    decoder: "auto" or a decoder's name. batch_size: videos per pass. workers: reading processes; 0 reads in this one.
    timeout_seconds: a video that takes a reading process longer stops the evaluation; 0 waits for ever.
    """

    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 1
    num_clips: Annotated[int, AtLeast(1)] = 2
    resize_px: Annotated[int, AtLeast(0)] = 0
    crop_px: Annotated[int, AtLeast(0)] = 0
    stages: str = "all"
    untrained_stage: bool = False
    pool: Annotated[str, OneOf(*POOLS)] = "avg"
    frames: Annotated[str, OneOf(*FRAMES)] = FRAMES[0]
    defects: Annotated[tuple[str, ...], OneOf(*DEFECTS)] = ()
    decoder: str = field(default="auto", metadata=ROUNDING)
    batch_size: Annotated[int, AtLeast(1)] = field(default=16, metadata=ROUNDING)
    workers: Annotated[int, AtLeast(0)] = field(default=2, metadata=IDLE)
    timeout_seconds: Annotated[float, AtLeast(0)] = field(default=120.0, metadata=IDLE)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of a resolved protocol, in the order of their columns."""
        return tuple(self.stages.split(","))


@dataclass(frozen=True)
class ProbeProtocol:
    """How frozen features are scored.

    regularization: strengths of the L2 penalty that the linear probe may choose from: the weight of |W|^2 / 2 beside
        the *mean* cross-entropy. holdout_fraction: share of train held out to choose on. num_holdouts: how many
        disjoint parts of that share are held out in turn; their scores are averaged.
    normalization: before the probe: "standard" (each column to mean 0, deviation 1 on train), "l2" (each video to length
        1), "none".
    max_iterations: of each fit; a fit that needs more is reported.
    solver: "lbfgs" solves for the optimum of each penalty (by Newton steps; the name is older); "sgd" trains a bank of heads side by side, one for each of
        ``learning_rates`` x ``weight_decays`` (``regularization`` and ``max_iterations`` are then not used).
    learning_rates, weight_decays: of the whole batch, not scaled by its size; the decay is the same penalty as
        ``regularization``, and may be 0.
    head_epochs, head_batch_size, head_momentum: of SGD. head_schedule: of the learning rate: "cosine" to 0, or "step", a
        tenth from 60 % of the epochs on and a hundredth from 80 % on.
    head_normalizations: normalizations to choose from on held-out train, for either solver; () is ``normalization``
        alone. "l2_batch" is l2 and then batch norm over each batch, as in CoCLR; for sgd only.
    head_stages: what a head is put on: "together" (all stages of the features side by side), "each" (one head on each
        stage alone, the best is chosen), "both".
    label_fractions: shares of the training labels to fit a probe on as well, below 1; each class keeps one video at
        least. Where too few are left to hold a part out, the penalty is the one chosen with all labels, and is said so.
    knn_ks: neighbors of the k-NN classifier, one result each. knn_temperature: of its weights exp(cosine / T).
    seed: of the held-out parts.
    """

    regularization: Annotated[tuple[float, ...], Positive, NotEmpty] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    holdout_fraction: Annotated[float, UpToHalf] = 0.2
    num_holdouts: Annotated[int, AtLeast(1)] = 5
    normalization: Annotated[str, OneOf(*NORMALIZATIONS)] = "standard"
    max_iterations: Annotated[int, AtLeast(1)] = 1000
    solver: Annotated[str, OneOf("lbfgs", "sgd")] = "lbfgs"
    learning_rates: Annotated[tuple[float, ...], Positive, NotEmpty] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    weight_decays: Annotated[tuple[float, ...], AtLeast(0), NotEmpty] = (1e-4, 1e-3, 1e-2, 1e-1)
    head_epochs: Annotated[int, AtLeast(1)] = 100
    head_batch_size: Annotated[int, AtLeast(2)] = 1024
    head_momentum: Annotated[float, BelowOne] = 0.9
    head_schedule: Annotated[str, OneOf("cosine", "step")] = "cosine"
    head_normalizations: Annotated[tuple[str, ...], OneOf(*NORMALIZATIONS, BATCH_NORMALIZATION)] = ()
    head_stages: Annotated[str, OneOf("together", "each", "both")] = "together"
    label_fractions: Annotated[tuple[float, ...], Inside] = ()
    knn_ks: Annotated[tuple[int, ...], AtLeast(1), NotEmpty] = (20,)
    knn_temperature: Annotated[float, Positive] = 0.07
    seed: Annotated[int, AtLeast(0)] = 0

    @property
    def normalizations(self) -> tuple[str, ...]:
        """The normalizations that the held-out part of train may choose from."""
        return self.head_normalizations or (self.normalization,)


@dataclass(frozen=True)
class RetrievalProtocol:
    """How test videos look for videos of their class among the training videos.

    ks: R@k is the share of test videos with one of their class among the k nearest. manner: "own" (what ``centering``
        and ``features.pool`` say), or that of a paper, which sets both and takes the deepest trained stage where none is
        named: "vcop" (max1x2x2, no centering; Xu et al., CVPR 2019), "coclr" (avg, separate; Han et al., NeurIPS 2020).
    centering: "separate" subtracts from train and from test each its own mean before the cosine; "none".
    num_shown: queries in the picture and on the page; half of them right where there are so many, drawn by ``seed``.
    seed: of these queries, and of the part of train that chooses the form of the random row.
    """

    ks: Annotated[tuple[int, ...], AtLeast(1), NotEmpty] = (1, 5, 10, 20, 50)
    manner: Annotated[str, OneOf("own", "vcop", "coclr")] = "own"
    centering: Annotated[str, OneOf("none", "separate")] = "none"
    num_shown: Annotated[int, AtLeast(1)] = field(default=12, metadata=IDLE)
    seed: Annotated[int, AtLeast(0)] = 0


@dataclass(frozen=True)
class BaselineProtocol:
    """Which rows stand beside a network's, on the same videos and under the same protocol.

    random: the network before training. histograms: of colors and of frame differences, without a network.
    trajectories: hand-made features of motion along dense trajectories, in Fisher vectors, without a network; some seconds of
    CPU for each video once (needs OpenCV, the extra ``motion``).
    single_frame: the network on one frame of each clip, repeated; shuffled_frames: on each clip's frames in a random
    order. Where either scores as the network does, these videos can be told apart without time.
    """

    random: bool = True
    histograms: bool = True
    trajectories: bool = False
    single_frame: bool = True
    shuffled_frames: bool = True


@dataclass(frozen=True)
class TrackingBaselines:
    """Which rows stand beside a network's where labels are carried through videos.

    random: the network before training. identity: labels that do not move. pixels: patches of raw pixels in the place of
    features, of the side of the network's cells. flow: labels that go with optical flow from frame to frame (needs OpenCV,
    the extra ``motion``).
    """

    random: bool = True
    identity: bool = True
    pixels: bool = True
    flow: bool = True


@dataclass(frozen=True)
class OnlineTrackingProtocol:
    """How far features follow masks, joints and points while pretraining goes on: a signal from a handful of sequences.

    every_epochs: 0 is off. name, root, list: of the videos, as in ``data``; an empty ``root`` takes those of ``data`` that are
    not trained on. split: "" is ``test``, or ``val``, or all. num_videos: at most, drawn by the seed. num_frames: of each, from
    its start; 0 is all. size_px: short side of the frames that the network sees. stride_px: pixels per cell, where the network
    has that option. num_previous, radius_cells: as in ``track``, whose other settings are taken as they are.
    """

    every_epochs: Annotated[int, AtLeast(0)] = 0
    name: str = "manifest"
    root: str = field(default="", metadata=PLACE)
    list: str = field(default="", metadata=PLACE)
    split: str = ""
    num_videos: Annotated[int, AtLeast(1)] = 8
    num_frames: Annotated[int, AtLeast(0)] = 25
    size_px: Annotated[int, AtLeast(16)] = 128
    stride_px: Annotated[int, AtLeast(0)] = 8
    num_previous: Annotated[int, AtLeast(0)] = 4
    radius_cells: Annotated[float, AtLeast(0)] = 6.0


@dataclass(frozen=True)
class OnlineProtocol:
    """Scores on labels while pretraining goes on; the labels never reach the backbone.

    every_epochs: 0 is off. num_train, num_test: labeled videos to fit on and to score, at most. knn_k: neighbors, at
    most num_train. features: how a video becomes a vector. tracking: scores without labels, of videos whose truth is known.
    """

    every_epochs: Annotated[int, AtLeast(0)] = 0
    num_train: Annotated[int, AtLeast(2)] = 500
    num_test: Annotated[int, AtLeast(1)] = 500
    knn_k: Annotated[int, AtLeast(1)] = 20
    features: FeatureProtocol = field(default_factory=lambda: FeatureProtocol(num_clips=1, stages="trained"))
    tracking: OnlineTrackingProtocol = field(default_factory=OnlineTrackingProtocol)


def resolve_feature_protocol(
    protocol: FeatureProtocol, info: BackboneInfo, trained_stage: str | None = None, *, group: str = "features."
) -> FeatureProtocol:
    """The protocol with every automatic value filled in for this backbone.

    Args:
        trained_stage: the deepest stage that pretraining trained; None where all are (or none is).
        group: what stands before the names of the options in texts; "" where they are arguments of their own.

    Raises:
        RecipeError: values that make no sense or that the backbone cannot take; all of them at once.
    """
    crop_px, resize_px = sides(protocol.crop_px, protocol.resize_px, info)
    filled = replace(protocol, crop_px=crop_px, resize_px=resize_px)
    problems = [*size_problems(filled, info, group)]
    if "color_jitter" in filled.defects and info.in_channels != RGB_CHANNELS:
        rule = f"changes colors, and backbone {info.name} takes clips of flow, which have none"
        problems.append(told(f"{group}defects", filled.defects, rule, []))
    check(filled, group, problems)
    return replace(filled, stages=",".join(_resolve_stages(filled, info, trained_stage, group)))


def check_probe_protocol(protocol: ProbeProtocol, num_train: int | None = None) -> None:
    """Make sure that the values make sense, and fit the number of training videos where it is given.

    Raises:
        RecipeError: all that is wrong, each with its rule and way out.
    """
    p = protocol
    most = num_train or max(p.knn_ks, default=1)
    problems = []
    if p.num_holdouts > (parts := round(1 / p.holdout_fraction) if p.holdout_fraction > 0 else 1):
        problems.append(told("probe.num_holdouts", p.num_holdouts, f"must be 1 to 1 / holdout_fraction, {parts}", 1))
    if p.solver != "sgd" and BATCH_NORMALIZATION in p.head_normalizations:
        rule = f"must name only {', '.join(NORMALIZATIONS)} where probe.solver is {p.solver}"
        problems.append(told("probe.head_normalizations", p.head_normalizations, rule, ("standard", "l2")))
    if max(p.knn_ks, default=0) > most:
        rule = f"must be at most the number of training videos, {most}"
        problems.append(told("probe.knn_ks", p.knn_ks, rule, [min(most, 5)]))
    check(protocol, "probe.", problems)


def resolve_retrieval(
    features: FeatureProtocol, retrieval: RetrievalProtocol
) -> tuple[FeatureProtocol, RetrievalProtocol]:
    """Both protocols with what the manner sets filled in; "own" sets nothing.

    Raises:
        RecipeError: a value was set to something else than the manner's, or makes no sense.
    """
    r = retrieval
    check(r, "retrieval.")
    if r.manner == "own":
        return features, r
    pool, centering = {"vcop": ("max1x2x2", "none"), "coclr": ("avg", "separate")}[r.manner]
    said = {
        "features.pool": (features.pool, FeatureProtocol.pool, pool),
        "retrieval.centering": (r.centering, RetrievalProtocol.centering, centering),
    }
    _raise_all(
        f"{name} ({value}) must be {its} where retrieval.manner is {r.manner}. Leave it out, or set retrieval.manner=own."
        for name, (value, default, its) in said.items()
        if value not in (default, its)
    )
    stages = "trained" if features.stages == "all" else features.stages
    return replace(features, pool=pool, stages=stages), replace(r, centering=centering)


def check_retrieval_protocol(protocol: RetrievalProtocol, num_train: int | None = None) -> None:
    """Make sure that the values make sense, and fit the number of training videos where it is given.

    Raises:
        RecipeError: all that is wrong, each with its rule and way out.
    """
    p = protocol
    most = num_train or max(p.ks, default=1)
    fitting = [k for k in RetrievalProtocol.ks if k <= most] or [most]
    problems = []
    if max(p.ks, default=0) > most:
        problems.append(told("retrieval.ks", p.ks, f"must be at most the number of training videos, {most}", fitting))
    check(protocol, "retrieval.", problems)


class Sizes(Protocol):
    """What a network must be able to take of a protocol."""

    @property
    def num_frames(self) -> int: ...
    @property
    def crop_px(self) -> int: ...
    @property
    def resize_px(self) -> int: ...


def sides(crop_px: int, resize_px: int, info: BackboneInfo) -> tuple[int, int]:
    """Side of the crop and short side before it, where 0 is the backbone's own and the usual margin: 128 for a crop of 112."""
    crop_px = crop_px or info.size
    return crop_px, resize_px or round(crop_px * 8 / 7)


def size_problems(p: Sizes, info: BackboneInfo, group: str) -> Iterator[str]:
    """What the network, or the crop, does not admit."""
    least = {
        "num_frames": (info.min_frames, f"{info.min_frames} for backbone {info.name}", info.num_frames),
        "crop_px": (info.min_px, f"{info.min_px} for backbone {info.name}", "0 (automatic)"),
        "resize_px": (p.crop_px, f"the crop, {p.crop_px}", "0 (automatic)"),
    }
    for name, (low, words, way_out) in least.items():
        if getattr(p, name) < low:
            yield told(f"{group}{name}", getattr(p, name), f"must be at least {words}", way_out)
    if info.max_frames is not None and p.num_frames > info.max_frames:
        rule = f"must be at most {info.max_frames} for backbone {info.name}"
        yield told(f"{group}num_frames", p.num_frames, rule, info.max_frames)


def _resolve_stages(p: FeatureProtocol, info: BackboneInfo, trained_stage: str | None, group: str) -> tuple[str, ...]:
    deepest = len(info.stages) - 1 if trained_stage is None else info.depth(trained_stage)
    if p.stages == "all":
        return info.stage_names[: deepest + 1]
    if p.stages == "trained":
        return (info.stage_names[deepest],)
    names = tuple(name.strip() for name in p.stages.split(","))
    _raise_all([_stage_problem(name, info, deepest, p.untrained_stage, group) for name in names])
    if len(set(names)) < len(names):
        raise RecipeError(
            f"{group}stages ({p.stages}) must name each stage once. Set {group}stages=all for all of them."
        )
    return names


def _stage_problem(name: str, info: BackboneInfo, deepest: int, untrained_stage: bool, group: str) -> str:
    if name not in info.stage_names:
        known = ("all", "trained", *info.stage_names)
        return f"{group}stages: backbone {info.name} has no stage {name!r}. {_meant(name, known)}"
    if info.depth(name) > deepest and not untrained_stage:
        return (
            f"{group}stages ({name}) must not be deeper than the deepest trained stage, {info.stage_names[deepest]}: "
            f"what lies beyond it was never trained. Set {group}stages=trained, or {group}untrained_stage=true to "
            "score it all the same."
        )
    return ""


def _meant(name: str, known: Sequence[str]) -> str:
    return did_you_mean(str(name), known)


def _raise_all(problems: Iterable[str]) -> None:
    found = [problem for problem in problems if problem]
    if found:
        raise RecipeError("\n".join(found))


def decoder_of(row: VideoRow, protocol: FeatureProtocol) -> str:
    """What reads this video here: a decoder, or measured flow."""
    return f"{FLOW_READER}{row.flow}" if row.flow else resolve_decoder(protocol.decoder, row.decoders_ok)
