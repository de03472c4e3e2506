"""How labels are carried through a video and what is scored: plain values, so that a published protocol is a set of them.

The algorithm is one and the same since TimeCycle (Wang et al., CVPR 2019): a cell of frame t looks for the cells most like
it in the first frame and in the frames before t, and takes the mean of their labels. What papers do differently stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ssvid.bounds import AtLeast, Between, OneOf, Positive, all_problems, told
from ssvid.errors import RecipeError
from ssvid.settings import IDLE, ROUNDING

SIZE_RULES = ("native", "short_side", "long_side", "square", "exact")
RESAMPLINGS = ("bilinear", "bicubic", "nearest", "nearest_exact")
MEASURES = ("all", "objects", "parts", "joints", "points")


@dataclass(frozen=True)
class PropagationProtocol:
    """How labels of one frame are carried through a video, and what of it is scored.

    measure: "objects" (masks; J and F), "parts" (masks of named parts; mean IoU), "joints" (PCK), "points" (TAP-Vid);
        "all" that can be made of what is known of the videos.

    Frames:
    size_rule: how large frames are shown to the network: "native", "short_side" or "long_side" (this side becomes
        ``size_px``), "square" (both do, whatever the shape), "exact" (``size_px`` high, ``width_px`` wide).
    size_px, width_px: in pixels. multiple_px: both sides become a multiple of it; 1 leaves them. multiple_rounding:
        "down", "up" or "nearest". multiple_sides: "both", or "other", the one that ``size_rule`` does not set.
    frame_resampling: of frames. antialias: low-pass before frames become smaller (bilinear and bicubic).

    Features:
    stage: a stage's name; "" is the deepest that was trained. untrained_stage: allow one deeper than that.
    stride_px: pixels per cell of its map, where the network has that option; 0 leaves the network as it is.
    normalization: "l2" makes each cell's feature of length 1, "none" compares by plain inner products.
    precision: "float32", or "float16", in which features are kept.

    Context:
    num_previous: frames before the one that is looked at, the nearest ones. first_frame: whether the first frame is
        there too, for good. primed: whether frames before the first one count as copies of it, so that the context always
        has ``num_previous`` frames (TimeCycle, CRW, CropMAE), or are not there (DINO, DINOv3).

    Affinity:
    temperature: scores are inner products over it. top_k: cells that give their label; 0 is all of them.
    top_k_over: "context" keeps the best of all frames together, "frame" those of each frame, and frames are averaged.
    softmax_over: "kept", the weights of the kept cells sum to 1 (top-k, then softmax; exp, top-k, renormalized is the
        same), or "all", weights are of a softmax over all cells, and what is not kept is lost (TimeCycle).
    radius_cells: only cells this near to the query's own place; 0 is everywhere. radius_shape: "circle" or "square".
        radius_includes: whether a cell at just this distance counts. radius_on_first: whether the first frame is under
        the radius too.

    Labels:
    label_resampling: from pixels to cells: "bilinear" (as OpenCV, four pixels), "area" (share of the cell),
        "nearest" (the corner), "nearest_exact" (the middle).
    grid: where cells lie: "stretched" over the whole frame (all published programs), or "placed" at every stride of
        pixels from the corner, which differs where a side is no multiple of the stride.
    feedback: what is carried on: "soft" labels as they are, "min_max" (each class brought to 0 to 1 over the frame; what is
        found of the frame is this, too), or "hard" (1 for the largest class).
    decision_min_max: bring each class to 0 to 1 over all pixels before the largest one is taken (DINO).
    decision_size: pixels at which the largest class is taken: "frame" (as the network sees it), or "video".
    decision_resampling: of soft labels, from cells to that size. score_size: "frame" or "video", where truth and found
        labels are compared. score_resampling: of what has another size then: "nearest" or "nearest_exact".

    Objects:
    convention: "davis2017", the mean over all objects; "davis2016", all objects are one, and the mean over sequences.

    Joints:
    joint_sigma_cells: of the Gaussian that is a joint's label. joint_cells: cells with most weight, whose mean is the
        joint. joint_half_cell: whether a cell stands for its middle, or for its corner (videowalk, CropMAE).

    Points:
    point_queries: "first" (each point where it is first seen), "strided" (every fifth frame), "both".
    point_radius_cells: around the best cell, where the soft maximum is taken. point_temperature: of its weights.
    point_min_cosine, point_max_cycle_px: a point is seen where the best cosine is as large, and the way back ends as near.

    max_mb: megabytes that scores may take at a time; the result does not depend on it but for ties.
    """

    measure: Annotated[str, OneOf(*MEASURES)] = "all"

    size_rule: Annotated[str, OneOf(*SIZE_RULES)] = "short_side"
    size_px: Annotated[int, AtLeast(16)] = 480
    width_px: Annotated[int, AtLeast(0)] = 0
    multiple_px: Annotated[int, AtLeast(1)] = 1
    multiple_rounding: Annotated[str, OneOf("down", "up", "nearest")] = "down"
    multiple_sides: Annotated[str, OneOf("both", "other")] = "both"
    frame_resampling: Annotated[str, OneOf(*RESAMPLINGS)] = "bicubic"
    antialias: bool = True

    stage: str = ""
    untrained_stage: bool = False
    stride_px: Annotated[int, AtLeast(0)] = 8
    normalization: Annotated[str, OneOf("l2", "none")] = "l2"
    precision: Annotated[str, OneOf("float32", "float16")] = field(default="float32", metadata=ROUNDING)

    num_previous: Annotated[int, AtLeast(0)] = 20
    first_frame: bool = True
    primed: bool = False

    temperature: Annotated[float, Positive] = 0.05
    top_k: Annotated[int, AtLeast(0)] = 10
    top_k_over: Annotated[str, OneOf("context", "frame")] = "context"
    softmax_over: Annotated[str, OneOf("kept", "all")] = "kept"
    radius_cells: Annotated[float, AtLeast(0)] = 12.0
    radius_shape: Annotated[str, OneOf("circle", "square")] = "circle"
    radius_includes: bool = True
    radius_on_first: bool = False

    label_resampling: Annotated[str, OneOf("bilinear", "area", "nearest", "nearest_exact")] = "area"
    grid: Annotated[str, OneOf("stretched", "placed")] = "placed"
    feedback: Annotated[str, OneOf("soft", "min_max", "hard")] = "soft"
    decision_min_max: bool = False
    decision_size: Annotated[str, OneOf("frame", "video")] = "video"
    decision_resampling: Annotated[str, OneOf("bilinear", "nearest", "nearest_exact")] = "bilinear"
    score_size: Annotated[str, OneOf("frame", "video")] = "video"
    score_resampling: Annotated[str, OneOf("nearest", "nearest_exact")] = "nearest_exact"

    convention: Annotated[str, OneOf("davis2017", "davis2016")] = "davis2017"

    joint_sigma_cells: Annotated[float, Positive] = 0.5
    joint_cells: Annotated[int, AtLeast(1)] = 3
    joint_half_cell: bool = False

    point_queries: Annotated[str, OneOf("first", "strided", "both")] = "both"
    point_radius_cells: Annotated[float, Positive] = 5.0
    point_temperature: Annotated[float, Positive] = 0.05
    point_min_cosine: Annotated[float, Between(-1, 1)] = 0.7
    point_max_cycle_px: Annotated[float, Positive] = 4.0

    max_mb: Annotated[int, AtLeast(16)] = field(default=512, metadata=IDLE)


def protocol_problems(protocol: PropagationProtocol, group: str = "") -> list[str]:
    """What is wrong with the values: each alone, and those that do not go together; [] where nothing is.

    Args:
        group: what stands before their names in texts ("track.").
    """
    more = []
    if protocol.size_rule == "exact" and not protocol.width_px:
        more.append(told(f"{group}width_px", 0, f"must be above 0 where {group}size_rule is exact", 880))
    if not protocol.first_frame and not protocol.num_previous:
        rule = f"must be at least 1 where {group}first_frame is false: there is no context otherwise"
        more.append(told(f"{group}num_previous", 0, rule, 7))
    return all_problems(protocol, group, more)


def check_protocol(protocol: PropagationProtocol, group: str = "") -> None:
    """Make sure that all values are legal and go together.

    Raises:
        RecipeError: all that is wrong, each with its rule and way out.
    """
    if problems := protocol_problems(protocol, group):
        raise RecipeError("\n".join(problems))
