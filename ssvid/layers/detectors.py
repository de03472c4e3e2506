"""What can go wrong with layers, seen in a figure: each has a limit, and a warning in words beyond it.

Limits stand where good scenes and bad ones were told apart: scenes and clips of DAVIS at 96 to 160 px of width, docs/results/layers.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssvid.errors import DataError
from ssvid.layers.atlas.quality import alpha_iou, centroids
from ssvid.layers.masks.propagation import warped
from ssvid.layers.motion import Canvas, ClipMotion, apply, grid_px

LEAST_UNCOVERED = 0.95  # good scenes and car-shadow 1.0, blackswan .93
LEAST_EVER_UNCOVERED = 0.4  # .20 to .35 of an object that stands still where the edges of its masks move by 1 and 2 px
LEAST_TRAVEL_SIZES = 1.5  # good scenes 5, car-shadow 2.1, blackswan 0.9
LEAST_INLIERS = 0.5  # .77 to .88 where the camera was found, .21 where it was lost
LEAST_ALPHA_IOU = 0.9
MOST_STRAY = 0.2  # of the area of an object: .01 of good fits, 1.1 and more where another object was swallowed
LEAST_STEADY_IOU = 0.6  # .63 to .95 of right masks, 0 to .56 of wrong ones
MOST_TRACK_P90_PX = 1.0  # 0.2 to 1.0 where atlases were right, 6.9 with masks that were wrong
LEAST_OUTSIDE_DB = 25.0  # 28.3 where the camera turns alone, 23.7 with parallax
LEAST_KEPT = 0.35  # .40 to 1.0 where places were right, 0 to .33 where an object was twice in its atlas
OBJECT_ALPHA = 0.25  # a pixel with more is of a layer


@dataclass(frozen=True)
class Finding:
    """A figure of a fit. name: what of. text: the figure as it is read. warning: what is wrong and what helps; "" where nothing is.

    beside: the same figure of what takes no model; "" where there is none.
    """

    name: str
    value: float
    text: str
    warning: str = ""
    beside: str = ""


# ---- masks


def missing_frames(masks_THW: np.ndarray) -> list[int]:
    """Frames in which an object has no mask."""
    return np.flatnonzero(~masks_THW.any(axis=(1, 2))).tolist()


def steadiness(masks_THW: np.ndarray, motion: ClipMotion) -> np.ndarray:
    """IoU of each mask but the first with the one before it, brought along: float64 (T - 1,), NaN where both are empty.

    It is brought along by flow, or as the middle of the mask moved from the frame before; what fits better counts, for the flow of a small
    object is often that of what lies behind it.
    """
    grid_HW2 = grid_px(*masks_THW.shape[1:])
    steps_T2 = np.diff(centroids(masks_THW), axis=0).astype(np.float32)
    found = np.full(len(masks_THW) - 1, np.nan)
    for t, (before_HW, now_HW) in enumerate(itertools.pairwise(masks_THW)):
        if not (before_HW.any() or now_HW.any()):
            continue
        ways = [motion.backward_THW2[t]]
        if t and np.isfinite(steps_T2[t - 1]).all():
            ways.append(-steps_T2[t - 1])
        found[t] = max(alpha_iou(warped(before_HW, grid_HW2 + way) >= 0.5, now_HW) for way in ways)
    return found


def find_mask_breaks(name: str, masks_THW: np.ndarray, motion: ClipMotion) -> list[Finding]:
    """Frames without a mask, and a mask that jumps.

    Raises:
        DataError: fewer than two frames have a mask.
    """
    missing, num_frames = missing_frames(masks_THW), len(masks_THW)
    if num_frames - len(missing) < 2:
        raise DataError(
            f"object {name} has a mask in {num_frames - len(missing)} of {num_frames} frames, and layers are told apart by how they move. Give "
            "masks of more frames, or take frames in which it is seen."
        )
    frames = ", ".join(map(str, missing[:8])) + (" and more" if len(missing) > 8 else "")
    seen = Finding(
        f"{name}: frames with a mask",
        num_frames - len(missing),
        f"{num_frames - len(missing)} of {num_frames}",
        f"{name} has no mask in frame {frames}: where it is seen there, it ends in the background. Paint one of them with --mask FRAME=FILE, or "
        "take frames in which it is seen."
        if missing
        else "",
    )
    steady_T = steadiness(masks_THW, motion)
    if np.isnan(steady_T).all():
        return [seen]
    worst = int(np.nanargmin(steady_T)) + 1
    least = float(steady_T[worst - 1])
    jump = Finding(
        f"{name}: least overlap of two masks in turn",
        least,
        f"{least:.2f} in frame {worst}",
        f"the mask of {name} changes more in frame {worst} than the picture moves (overlap {least:.2f}, {LEAST_STEADY_IOU:g} at least is usual). "
        f"Look at masks.png, and paint frame {worst} too: --mask {worst}=FILE."
        if least < LEAST_STEADY_IOU
        else "",
    )
    return [seen, jump]


# ---- movement


def uncovered_share(masks_THW: np.ndarray, canvas: Canvas) -> float:
    """Share of the places on the canvas where an object ever was that some frame shows without it."""
    hidden_HW = np.zeros((canvas.height, canvas.width), bool)
    free_HW = hidden_HW.copy()
    grid_P2 = grid_px(*masks_THW.shape[1:]).reshape(-1, 2)
    for mask_HW, matrix_33 in zip(masks_THW, canvas.to_canvas_T33, strict=True):
        places_P2 = np.rint(apply(matrix_33, grid_P2)).astype(int)
        inside_P = ((places_P2 >= 0) & (places_P2 < (canvas.width, canvas.height))).all(axis=1)
        for where_HW, own_P in ((hidden_HW, mask_HW.ravel()), (free_HW, ~mask_HW.ravel())):
            x, y = places_P2[inside_P & own_P].T
            where_HW[y, x] = True
    return float((hidden_HW & free_HW).sum() / max(hidden_HW.sum(), 1))


def travel_sizes(masks_THW: np.ndarray, canvas: Canvas) -> float:
    """The longest way between two places of an object's middle on the canvas, in sizes of the object, each the root of its area."""
    shown_T = masks_THW.any(axis=(1, 2))
    middles_T2 = np.stack(
        [
            apply(matrix_33, middle_2[None])[0]
            for matrix_33, middle_2 in zip(canvas.to_canvas_T33[shown_T], centroids(masks_THW[shown_T]), strict=True)
        ]
    )
    ways_TT = np.linalg.norm(middles_T2[:, None] - middles_T2[None], axis=2)
    return float(ways_TT.max() / np.sqrt(masks_THW[shown_T].sum(axis=(1, 2))).mean())


def find_movement(name: str, masks_THW: np.ndarray, canvas: Canvas, needs_background: bool) -> list[Finding]:
    """Whether an object moves enough against the background to be told from it.

    Args:
        masks_THW: bool, at the size that the canvas is of. needs_background: whether nothing can be done where it never leaves its place.

    Raises:
        DataError: it never does.
    """
    share, travel = uncovered_share(masks_THW, canvas), travel_sizes(masks_THW, canvas)
    if needs_background and share < LEAST_EVER_UNCOVERED:
        raise DataError(
            f"what lies behind {name} is hardly seen in any frame: {100 * share:.0f} % of its places are ever free, and at least "
            f"{100 * LEAST_EVER_UNCOVERED:.0f} % must be (an object that stands still has up to 35 %, by the edges of its masks): a background would be "
            "invented. Take frames in which it moves away, more of them or with a larger --stride; or --kind atlas, which needs none."
        )
    helps = "Effects that move little with it stay in the background. Take more frames, or a larger --stride."
    return [
        Finding(
            f"{name}: places that are seen free in some frame",
            share,
            f"{100 * share:.0f} %",
            f"only {100 * share:.0f} % of the places where {name} is are ever seen without it ({100 * LEAST_UNCOVERED:.0f} % in good clips); the rest "
            f"is filled from around. {helps}"
            if share < LEAST_UNCOVERED
            else "",
        ),
        Finding(
            f"{name}: way against the background",
            travel,
            f"{travel:.1f} times its size",
            f"{name} moves {travel:.1f} times its own size against the background ({LEAST_TRAVEL_SIZES:g} in good clips). {helps}"
            if travel < LEAST_TRAVEL_SIZES
            else "",
        ),
    ]


def find_camera(inliers_T: np.ndarray) -> Finding:
    """Whether the motion of the background is that of a camera that turns and zooms."""
    worst = int(np.argmin(inliers_T))
    least = float(inliers_T[worst])
    return Finding(
        "camera: least share of the background that moves as one",
        least,
        f"{100 * least:.0f} % in frame {worst}",
        f"only {100 * least:.0f} % of the background moves as one in frame {worst} (77 to 88 % in good clips): the motion of the camera may be lost "
        "there, or the background is deep and the camera moves through it. Look at the background in preview.mp4; take fewer frames."
        if least < LEAST_INLIERS
        else "",
    )


# ---- what was fitted


def stray_share(alphas_THW: np.ndarray, masks_THW: np.ndarray) -> float:
    """Area of a layer that is not connected to its object's mask, as a share of the mask's, over all frames."""
    stray = 0
    for alpha_HW, mask_HW in zip(alphas_THW, masks_THW, strict=True):
        labels_HW, count = ndimage.label(alpha_HW > OBJECT_ALPHA, np.ones((3, 3)))
        touched = np.unique(labels_HW[ndimage.binary_dilation(mask_HW, iterations=2)])
        stray += int(np.isin(labels_HW, np.setdiff1d(np.arange(1, count + 1), touched)).sum())
    return stray / max(int(masks_THW.sum()), 1)


def find_alpha(name: str, alphas_THW: np.ndarray, masks_THW: np.ndarray, has_effects: bool) -> Finding:
    """Whether a layer still is its object: of one with effects, whether it swallowed what moves by itself; of one without, whether it
    keeps to its mask."""
    if has_effects:
        share = stray_share(alphas_THW, masks_THW)
        return Finding(
            f"{name}: parts of the layer away from the object, of its area",
            share,
            f"{100 * share:.0f} %",
            f"parts of the layer of {name} lie away from it ({100 * share:.0f} % of its area): something else that moves may have been swallowed. Look "
            "at preview.mp4; give that a mask of its own, or take fewer steps."
            if share > MOST_STRAY
            else "",
        )
    iou = alpha_iou(alphas_THW, masks_THW)
    return Finding(
        f"{name}: IoU of its alpha and its mask",
        iou,
        f"{iou:.3f}",
        f"the alpha of {name} has left its mask (IoU {iou:.2f}, at least {LEAST_ALPHA_IOU:g} in good clips): masks, or flow, are wrong somewhere. Look "
        "at masks.png and preview.mp4."
        if iou < LEAST_ALPHA_IOU
        else "",
    )


def find_background(outside_db: float) -> Finding:
    """Whether one picture explains the background. outside_db: PSNR of it where no object is."""
    return Finding(
        "background: PSNR where no object is",
        outside_db,
        f"{outside_db:.1f} dB",
        f"the background is only {outside_db:.1f} dB like the video where no object is (28 in good clips): it moves in depth, or changes. It will look "
        "smeared behind what is removed."
        if outside_db < LEAST_OUTSIDE_DB
        else "",
    )


def find_correspondence(name: str, errors_px: Sequence[float]) -> Finding:
    """Whether a place of an atlas is the same thing in all frames. errors_px: of tracks that no loss has seen, px of the fit."""
    if len(errors_px) == 0:
        return Finding(
            f"{name}: error of its tracks",
            float("nan"),
            "none: no place of it could be tracked, it is too small or too smooth",
        )
    median, high = (float(np.percentile(errors_px, share)) for share in (50, 90))
    return Finding(
        f"{name}: error of its tracks",
        high,
        f"median {median:.2f}, 90 % below {high:.2f} px of the fit, {len(errors_px)} tracked places",
        f"a tenth of what was tracked on {name} lies more than {high:.1f} px away from where its atlas puts it ({MOST_TRACK_P90_PX:g} in good clips): "
        "an edit slides there. Fast motion, motion blur or occlusion do this; take fewer frames."
        if high > MOST_TRACK_P90_PX
        else "",
    )


def kept_shares(uv_px_THW2: np.ndarray, weights_THW: np.ndarray, cell_px: float = 4.0) -> np.ndarray:
    """Share of what the middle frame shows of an atlas that each frame shows: float64 (T,), 1 in the middle.

    Args:
        uv_px_THW2: place of each pixel in the atlas. weights_THW: how much of the layer is seen there. cell_px: side of what counts as
            one place.
    """
    cells_THW2 = np.floor(uv_px_THW2 / cell_px).astype(np.int64)
    shown = [
        {tuple(cell) for cell in cells_HW2[weight_HW > 0.5]}
        for cells_HW2, weight_HW in zip(cells_THW2, weights_THW, strict=True)
    ]
    middle = shown[len(shown) // 2]
    return np.array([len(middle & own) / max(len(middle), 1) for own in shown])


def find_copies(name: str, kept_T: np.ndarray, visible_T: np.ndarray) -> Finding:
    """Whether an atlas holds an object twice, so that an edit is missing in some frames.

    Args:
        kept_T: of ``kept_shares``. visible_T: bool, where the object is seen at all.
    """
    shares_T = np.where(visible_T, kept_T, 1.0)
    worst = int(np.argmin(shares_T))
    least = float(shares_T[worst])
    return Finding(
        f"{name}: least share of the middle frame's places that a frame shows",
        least,
        f"{100 * least:.0f} % in frame {worst}",
        f"frame {worst} shows {100 * least:.0f} % of what the middle frame shows of the atlas of {name}: the atlas may hold it twice, and an edit would be "
        "missing there. Where it turned around or was hidden that is right; else take fewer frames."
        if least < LEAST_KEPT
        else "",
    )
