"""Where the limits of four detectors of layers stand: their figures on good scenes, and on scenes broken on purpose.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.bench_layers_detectors --out build/detectors [--real FOLDER] [--only PART ...]

masks: overlap of two masks in turn. places: the share of an atlas's places that frames show. free: places that are seen free in some frame, and
what the background is worth there. stray: parts of a layer away from its object. Only ``stray`` fits anything, two Omnimattes of 300 steps (about 50
CPU seconds). FOLDER holds davis/DAVIS2016. Writes detectors.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from ssvid.files import write_text
from ssvid.layers import detectors
from ssvid.layers.background import camera_canvas, grown, inpainted, masked_median, views
from ssvid.layers.clip import LayerClip
from ssvid.layers.detectors import kept_shares, steadiness, stray_share, travel_sizes, uncovered_share
from ssvid.layers.motion import ClipMotion, apply, grid_px, measure_motion, similarities
from ssvid.layers.omnimatte.config import OmnimatteConfig, fit_size
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.measures import psnr
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.machine import environment
from ssvid.video.synthetic_effects import to_bytes, walkers
from ssvid.video.synthetic_layers import draw_layered_scene, render_layers
from ssvid.video.synthetic_scenes import SCENES, draw_known_scene
from tests.benchmarks.bench_layers_atlas import davis

SEEDS = (0, 1, 2)
CLIPS = ("blackswan", "car-shadow", "libby", "motocross-jump")
TRAVELS_PX = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 40.0, 70.0)
STEPS = 300


class Line(NamedTuple):
    """One figure. group: of what; the range of a group is what stands in the table."""

    group: str
    figure: float
    is_good: bool


# ---- clips


def known_clips() -> Iterator[tuple[str, LayerClip]]:
    for kind in SCENES:
        for seed in SEEDS:
            scene = draw_known_scene(kind, seed)
            yield kind, LayerClip(scene.frames_THWC, scene.masks_NTHW, scene.names, 12.0)


def real_clips(folder: Path | None) -> Iterator[tuple[str, LayerClip]]:
    for name in CLIPS if folder else ():
        whole = davis(folder, name)  # type: ignore[arg-type]
        yield name, whole.resized(*fit_size(*whole.size, 80))


# ---- masks


def broken(masks_THW: np.ndarray) -> dict[str, np.ndarray]:
    """The masks of an object, wrong in the middle frame."""
    middle = len(masks_THW) // 2
    own_HW = masks_THW[middle]
    y, x = np.nonzero(own_HW)
    wide, high = np.ptp(x) + 1, np.ptp(y) + 1
    columns = np.arange(own_HW.shape[1])
    half_HW, grown_HW = own_HW & (columns < np.median(x)), ndimage.binary_dilation(own_HW, iterations=max(1, wide // 4))
    wrong = {
        "shifted by half of its width": ndimage.shift(own_HW.astype(np.uint8), (0, wide // 2), order=0) > 0,
        "shifted by its height": ndimage.shift(own_HW.astype(np.uint8), (high, 0), order=0) > 0,
        "half of it lost": half_HW,
        "grown by a quarter of its width": grown_HW,
        "that of 8 frames later": masks_THW[min(middle + 8, len(masks_THW) - 1)],
    }
    return {
        name: np.concatenate([masks_THW[:middle], one[None], masks_THW[middle + 1 :]]) for name, one in wrong.items()
    }


def least_overlap(masks_THW: np.ndarray, motion: ClipMotion) -> float:
    return float(np.nanmin(steadiness(masks_THW, motion)))


def measure_masks(folder: Path | None) -> list[Line]:
    lines = []
    for is_real, clips in ((False, known_clips()), (True, real_clips(folder))):
        for name, clip in clips:
            motion = measure_motion(clip.frames_THWC)
            for masks_THW in clip.masks_NTHW:
                lines.append(Line(name, least_overlap(masks_THW, motion), True))
                sort = "real clips" if is_real else "scenes"
                lines += [
                    Line(f"{sort}, {how}", least_overlap(m, motion), False) for how, m in broken(masks_THW).items()
                ]
            if len(clip.masks_NTHW) == 2:
                swapped_NTHW = clip.masks_NTHW.copy()
                swapped_NTHW[:, 10] = clip.masks_NTHW[::-1, 10]
                lines += [Line("scenes, two objects swapped", least_overlap(m, motion), False) for m in swapped_NTHW]
    return lines


# ---- places of an atlas


def least_kept(uv_px_THW2: np.ndarray, seen_THW: np.ndarray) -> float:
    shown_T = seen_THW.any(axis=(1, 2))
    return float(kept_shares(uv_px_THW2, seen_THW.astype(np.float32))[shown_T].min())


def measure_places(folder: Path | None) -> list[Line]:
    lines = []
    for kind, bending_px, num_bodies in (("rigid", 0.0, 1), ("bending", 2.0, 1), ("two, one behind the other", 0.0, 2)):
        for seed in SEEDS:
            scene = draw_layered_scene(seed, num_bodies=num_bodies, bending_px=bending_px)
            xy_P2 = grid_px(scene.height, scene.width).reshape(-1, 2).astype(float)
            for number, mask_THW in enumerate(render_layers(scene).masks()):
                uv = [scene.to_canonical(number, xy_P2, t) for t in range(scene.num_frames)]
                uv_THW2 = np.stack(uv).reshape(*mask_THW.shape, 2)
                lines += told_of_places(f"{kind}, true places", uv_THW2, mask_THW)
    for name, clip in real_clips(folder):
        (mask_THW,) = clip.masks_NTHW
        chain = similarities(measure_motion(clip.frames_THWC), mask_THW)
        xy_P2 = grid_px(*clip.size).reshape(-1, 2)
        uv_THW2 = np.stack([apply(matrix, xy_P2) for matrix in chain.to_middle_T33]).reshape(*mask_THW.shape, 2)
        lines += told_of_places(f"{name}, chained similarities", uv_THW2, mask_THW)
    return lines


def told_of_places(name: str, uv_THW2: np.ndarray, mask_THW: np.ndarray) -> list[Line]:
    """As they are, and with a second copy of the object in the atlas: as a whole from a quarter of the frames on, or in part."""
    twice, partly = uv_THW2.copy(), uv_THW2.copy()
    twice[: len(uv_THW2) // 4] += 1000.0
    for t in range(len(uv_THW2) // 4):
        x = np.nonzero(mask_THW[t])[1]
        partly[t, :, : int(np.quantile(x, 0.75)) if len(x) else 0] += 1000.0
    grid_THW2 = np.broadcast_to(grid_px(*mask_THW.shape[1:]), uv_THW2.shape)
    return [
        Line(name, least_kept(uv_THW2, mask_THW), True),
        Line("a second copy of the object", least_kept(twice, mask_THW), False),
        Line("a second copy of three quarters of it", least_kept(partly, mask_THW), False),
        Line("places that do not move with the object", least_kept(grid_THW2, mask_THW), False),
    ]


# ---- what is seen free


def measure_free(folder: Path | None) -> str:
    """How a walker's way, its free places and what its background is worth go together."""
    rows = []
    for travel_px in TRAVELS_PX:
        found = np.array([free_of_walker(seed, travel_px) for seed in SEEDS])
        _, sizes, hidden_db, filled_db = found.mean(axis=0)
        low, high = 100 * found[:, 0].min(), 100 * found[:, 0].max()
        rows.append(f"| {travel_px:g} | {low:.0f} to {high:.0f} % | {sizes:.1f} | {hidden_db:.1f} | {filled_db:.1f} |")
    still = [jittered_share(seed, edge_px) for edge_px in (1, 2) for seed in SEEDS]
    real = [f"{name} {100 * share_of(clip):.0f} %" for name, clip in real_clips(folder)]
    return "\n".join(
        [
            "| way, px | seen free | way, sizes | background there, dB | filled from around alone, dB |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Standing still, edges of masks that move by 1 and 2 px: {', '.join(f'{100 * s:.0f} %' for s in still)}. Clips: {', '.join(real)}.",
        ]
    )


def free_of_walker(seed: int, travel_px: float) -> tuple[float, float, float, float]:
    """Share, sizes, and PSNR of the background that a fit starts from where an object ever was: as found, and filled from around alone."""
    scene = walkers(seed, num_objects=1, travel_px=travel_px)
    clip = LayerClip(scene.frames(), scene.masks(), scene.names, 12.0)
    canvas, _ = camera_canvas(clip, measure_motion(clip.frames_THWC), "static")
    (mask_THW,) = clip.masks_NTHW
    hidden_THW = grown(mask_THW, OmnimatteConfig().grown_px)
    ever_HW = mask_THW.any(axis=0)
    found_HWC = inpainted(*masked_median(clip.frames_THWC, hidden_THW, canvas))
    blind_THW = np.broadcast_to(hidden_THW.any(axis=0), hidden_THW.shape)
    filled_HWC = inpainted(*masked_median(clip.frames_THWC, blind_THW, canvas))
    truth_HWC = to_bytes(scene.background())[0]
    seen = [views(one, canvas, *clip.size)[0] for one in (found_HWC, filled_HWC)]
    worth = [psnr(one, truth_HWC, ever_HW) for one in seen]
    return uncovered_share(mask_THW, canvas), travel_sizes(mask_THW, canvas), worth[0], worth[1]


def jittered_share(seed: int, edge_px: int) -> float:
    """Of an object that stands still, and whose mask is a little larger in every second frame."""
    scene = walkers(seed, num_objects=1, travel_px=0.0)
    mask_HW = scene.masks()[0, 0]
    masks_THW = np.stack(
        [ndimage.binary_dilation(mask_HW, iterations=edge_px) if t % 2 else mask_HW for t in range(20)]
    )
    clip = LayerClip(scene.frames(), masks_THW[None], scene.names, 12.0)
    return share_of(clip, "static")


def share_of(clip: LayerClip, camera: str = "auto") -> float:
    try:
        canvas, _ = camera_canvas(clip, measure_motion(clip.frames_THWC), camera)
    except detectors.DataError:
        return float("nan")  # the camera was lost
    return uncovered_share(clip.masks_NTHW[0], canvas)


# ---- what was swallowed


def measure_stray() -> str:
    """One object, and two of which one has no mask: what of the layer lies away from the object as the fit goes on."""
    scene, rows = walkers(0), []
    clip = LayerClip(scene.frames(), scene.masks(), scene.names, 12.0)
    alone = walkers(0, num_objects=1)
    clips = {
        "one object, all that moves": LayerClip(alone.frames(), alone.masks(), alone.names, 12.0),
        "another one moves without a mask": replace(clip, masks_NTHW=clip.masks_NTHW[:1], names=clip.names[:1]),
    }
    steps = list(range(50, STEPS + 1, 50))
    for name, one in clips.items():
        curve = stray_curve(one)
        rows.append(f"| {name} | {' | '.join(f'{100 * curve[step]:.0f} %' for step in steps)} |")
    head = f"| | {' | '.join(f'step {step}' for step in steps)} |"
    return "\n".join([head, "|---" * (len(steps) + 1) + "|", *rows])


def stray_curve(clip: LayerClip) -> dict[int, float]:
    curve: dict[int, float] = {}

    def look(model: OmnimatteModel, losses: object) -> None:
        if model.step % 50 == 0:
            curve[model.step] = stray_share(model.raw_layers()[0, ..., 3], clip.masks_NTHW[0])

    fit_omnimatte(clip, measure_motion(clip.frames_THWC), OmnimatteConfig(iterations=STEPS), on_step=look)
    return curve


# ---- words


def ranges(lines: list[Line], limit: float) -> str:
    """The range of each group, good ones first, and how many lie on the wrong side of the limit (below it is broken)."""
    rows = ["| | figures | range | beyond the limit |", "|---|---|---|---|"]
    for is_good in (True, False):
        for group in dict.fromkeys(line.group for line in lines if line.is_good == is_good):
            found = np.array([line.figure for line in lines if line.group == group])
            sort = "good" if is_good else "**broken**"
            told = int((found < limit).sum())
            rows.append(f"| {sort}: {group} | {len(found)} | {found.min():.2f} to {found.max():.2f} | {told} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--only", nargs="+", choices=("masks", "places", "free", "stray"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    steady, kept = detectors.LEAST_STEADY_IOU, detectors.LEAST_KEPT
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "masks": (
            f"Least overlap of two masks in turn: a warning below {steady:g}",
            lambda: ranges(measure_masks(args.real), steady),
        ),
        "places": (
            f"Least share of the middle frame's places: a warning below {kept:g}",
            lambda: ranges(measure_places(args.real), kept),
        ),
        "free": (
            f"Places that are seen free: refused below {100 * detectors.LEAST_EVER_UNCOVERED:g} %",
            lambda: measure_free(args.real),
        ),
        "stray": (
            f"Parts of a layer away from its object: a warning above {100 * detectors.MOST_STRAY:g} %",
            measure_stray,
        ),
    }
    texts = ["# Detectors"]
    for name in args.only or parts:
        title, measured = parts[name]
        texts.append(f"## {title}\n\n{measured()}")
        print(texts[-1], flush=True)
    write_text(args.out / "detectors.md", "\n\n".join([*texts, f"`{environment()}`\n"]))


if __name__ == "__main__":
    main()
