"""Atlases on scenes whose layers are known, the ablation of their losses, and two clips of DAVIS beside a tracker that no loss uses.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_layers_atlas --out DIR [--seeds 0 1 2] [--parts PART ...] [--real DIR]
Example: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_layers_atlas --out build/atlas --real data/real

known: a rigid body, the settings "fast", 600 iterations. bending: waves run through it; beside, its mapping left where it begins. between: every
second frame is fitted, and those between are compared. two: two bodies, one of which passes behind the other. ablation: the settings "published",
800 iterations, one thing left out at a time, on a scene of 12 frames and fine grain. real: blackswan and car-shadow, 24 frames of 160 x 90, 1,000 iterations; correspondence against Lucas and Kanade at full size.

Writes a file for each fit, of real clips the model too, so that the command can be stopped and given again, and atlas.md with all that is there: each figure beside its
floor. --real is the folder that holds davis/DAVIS2016.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ssvid.files import write_json, write_picture, write_text
from ssvid.layers.atlas import FAST, AtlasConfig, AtlasModel, fit_atlas
from ssvid.layers.atlas.known import ABLATION, KNOWN, SHOWS, Figures, filmed, known_figures, scene_of_ablation
from ssvid.layers.atlas.quality import alpha_iou, between_pixels, corners_in, lucas_kanade, places_of, psnr
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import measure_motion
from ssvid.machine import environment
from ssvid.video.synthetic_layers import KnownLayers, LayeredScene, draw_layered_scene, render_layers

REAL_SIZE, REAL_FRAMES = (90, 160), 24
OTHER_FRAMES = (0, 4, 8, 16, 20, 23)  # of real clips, seen from the one in the middle


class Fit(NamedTuple):
    """One line: what is fitted, and how."""

    part: str
    name: str
    scene: str
    config: AtlasConfig

    def file(self, out: Path, seed: int) -> Path:
        return out / f"{self.part}-{self.name.replace(' ', '-')}-{seed}.json"


def fits() -> list[Fit]:
    return [
        Fit("known", "fast", "rigid", KNOWN),
        Fit("bending", "fast", "bending", KNOWN),
        Fit("bending", "mapping frozen", "bending", replace(KNOWN, learn_mapping=False)),
        Fit("two", "fast", "two bodies", KNOWN),
        Fit("between", "every second frame", "between", KNOWN),
        *(Fit("ablation", name, "ablation", config) for name, config in ABLATION.items()),
        *(Fit("real", clip, clip, replace(FAST, iterations=1000)) for clip in ("blackswan", "car-shadow")),
    ]


# ---- scenes that are known


def drawn(kind: str, seed: int) -> tuple[LayeredScene, KnownLayers]:
    if kind == "ablation":
        scene = scene_of_ablation(seed)
    else:
        bending_px, num_frames = 2.0 if kind == "bending" else 0.0, 39 if kind == "between" else 20
        num_bodies = 2 if kind == "two bodies" else 1
        scene = draw_layered_scene(seed, num_bodies=num_bodies, bending_px=bending_px, num_frames=num_frames)
    return scene, render_layers(scene)


def measure_known(fit: Fit, seed: int, out: Path) -> Figures:
    scene, known = drawn(fit.scene, seed)
    clip = filmed(scene, known)
    model, seconds = timed_fit(clip, fit.config, seed)
    picture(model, clip, out / f"{fit.file(out, seed).stem}.png")
    return {"cpu_seconds": seconds} | known_figures(model, scene, known)


def timed_fit(clip: LayerClip, config: AtlasConfig, seed: int) -> tuple[AtlasModel, float]:
    began = time.process_time()
    model = fit_atlas(clip, measure_motion(clip.frames_THWC), config, seed=seed)
    return model, time.process_time() - began


def measure_between(fit: Fit, seed: int, out: Path) -> Figures:
    """Frames that were not fitted, beside the mean of their neighbors."""
    scene, known = drawn(fit.scene, seed)
    clip = LayerClip(known.frames_THWC[::2], known.masks()[:, ::2], ("fg",), 25.0)
    model, seconds = timed_fit(clip, fit.config, seed)
    shown = model.recompose(scene.height, scene.width, np.arange(clip.num_frames - 1) + 0.5)
    true, fitted = known.frames_THWC[1::2], clip.frames_THWC.astype(float)
    blended = np.rint((fitted[:-1] + fitted[1:]) / 2).astype(np.uint8)
    return {"cpu_seconds": seconds, "psnr_between": psnr(shown, true), "psnr_blended": psnr(blended, true)}


# ---- clips of DAVIS


def davis(folder: Path, clip: str) -> LayerClip:
    """At full size."""
    pictures = sorted((folder / "davis/DAVIS2016/JPEGImages/480p" / clip).glob("*.jpg"))[:REAL_FRAMES]
    masks = [folder / "davis/DAVIS2016/Annotations/480p" / clip / f"{picture.stem}.png" for picture in pictures]
    frames = np.stack([np.asarray(Image.open(picture).convert("RGB")) for picture in pictures])
    found = np.stack([np.asarray(Image.open(mask).convert("L")) > 127 for mask in masks])
    return LayerClip(frames, found[None], (clip,), 24.0)


def measure_real(fit: Fit, seed: int, out: Path, folder: Path) -> Figures:
    whole = davis(folder, fit.scene)
    clip = whole.resized(*REAL_SIZE)
    model, seconds = timed_fit(clip, fit.config, seed)
    torch.save(model.state(), out / f"{fit.file(out, seed).stem}.pt")
    times = range(clip.num_frames)
    shown = model.recompose(*REAL_SIZE, times)
    picture(model, clip, out / f"{fit.file(out, seed).stem}.png")
    figures = {
        "cpu_seconds": seconds,
        "psnr": psnr(shown, clip.frames_THWC),
        "psnr_object": psnr(shown, clip.frames_THWC, clip.masks_NTHW[0]),
        "alpha_iou": alpha_iou(model.alphas(*REAL_SIZE, times)[0], clip.masks_NTHW[0]),
    }
    for layer, name in enumerate(model.names):
        short = "fg" if layer == 0 else "background"
        gaps = real_gaps(model, whole, layer, name)
        figures |= {f"lk_{short}_median": float(np.median(gaps)), f"lk_{short}_p90": float(np.percentile(gaps, 90))}
        figures[f"lk_{short}_points"] = float(len(gaps))
    return figures


def real_gaps(model: AtlasModel, whole: LayerClip, layer: int, name: str) -> np.ndarray:
    """Between the places that the tracker and the atlas find, in px of the size that was fitted."""
    middle, (height, width) = whole.num_frames // 2, REAL_SIZE
    to_fitted = np.array([width / whole.size[1], height / whole.size[0]])
    own = whole.masks_NTHW[0] if layer == 0 else ~whole.masks_NTHW[0]
    start_N2 = corners_in(whole.frames_THWC[middle], own[middle], 150)
    uv_px = model.uv_px(name, height, width, range(whole.num_frames))
    weights = model.weights(height, width, range(whole.num_frames))[layer]
    gaps = []
    for t in OTHER_FRAMES:
        tracks = lucas_kanade(whole.frames_THWC, middle, t, start_N2)
        ends = tracks.end_N2.clip(0, (whole.size[1] - 1, whole.size[0] - 1))
        column, row = np.rint(ends).astype(int).T
        kept = tracks.found_N & own[t, row, column]
        begun, ended = ((points[kept] + 0.5) * to_fitted - 0.5 for points in (tracks.start_N2, tracks.end_N2))
        if len(begun):
            found = places_of(uv_px[t], weights[t], between_pixels(uv_px[middle], begun))
            gaps.append(np.linalg.norm(found - ended, axis=1))
    return np.concatenate(gaps)


def picture(model: AtlasModel, clip: LayerClip, path: Path) -> None:
    """First, middle and last frame above what the atlases show; for the eye."""
    chosen = [0, clip.num_frames // 2, clip.num_frames - 1]
    rows = (clip.frames_THWC[chosen], model.recompose(*clip.size, chosen))
    write_picture(path, np.concatenate([np.concatenate(frames, axis=1) for frames in rows]))
    for name in model.names:
        write_picture(path.with_name(f"{path.stem}-{name}.png"), model.atlas_rgba(name))


# ---- floors and the page


FLOORS: dict[tuple[str, str], list[tuple[str, str, float]]] = {
    ("known", "fast"): [
        ("psnr", ">=", 38), ("alpha_iou", ">=", 0.95), ("track_fg", "<=", 0.25), ("track_fg_p95", "<=", 0.5),
        ("track_background", "<=", 0.25), ("track_background_p95", "<=", 0.6), ("edit_fg_max", "<=", 0.5), ("edit_background_max", "<=", 0.5),
        ("stretch", "<=", 0.1), ("folded", "<=", 0),
    ],
    ("bending", "fast"): [("psnr_object", ">=", 28), ("track_fg", "<=", 1.2)],
    ("real", "blackswan"): [("psnr", ">=", 26.5), ("lk_fg_median", "<=", 0.3), ("alpha_iou", ">=", 0.9)],
    ("real", "car-shadow"): [("psnr", ">=", 27.5), ("lk_fg_median", "<=", 0.6), ("alpha_iou", ">=", 0.9)],
}  # fmt: skip
# Of two lines with the same seed: (part, name, other name, figure, how they are compared, floor).
Compared = tuple[str, str, str, str, Callable[[float, float], float], float]
COMPARED: list[Compared] = [
    ("bending", "fast", "mapping frozen", "psnr_object", lambda a, b: a - b, 4),
    *(("ablation", name, "complete", key, lambda a, b: a / b, floor) for name, (key, floor) in SHOWS.items()),
    ("ablation", "grid atlas", "complete", "psnr", lambda a, b: a - b, 0),
]


def found_in(out: Path) -> dict[tuple[str, str], dict[int, Figures]]:
    """(part, name) -> seed -> figures, of the files that are there."""
    found: dict[tuple[str, str], dict[int, Figures]] = {}
    for fit in fits():
        for path in sorted(out.glob(f"{fit.file(out, 0).stem[:-2]}-*.json")):
            found.setdefault((fit.part, fit.name), {})[int(path.stem.rpartition("-")[2])] = figures_in(path)
    return found


def figures_in(path: Path) -> Figures:
    """Of a file; what is not finite, such as the place of an edit that a frame does not show, is written as null."""
    return {key: math.inf if value is None else value for key, value in json.loads(path.read_text()).items()}


def lines(out: Path) -> Iterator[str]:
    found = found_in(out)
    for part in dict.fromkeys(part for part, _ in found):
        rows = {name: by_seed for (own, name), by_seed in found.items() if own == part}
        keys = list(dict.fromkeys(key for by_seed in rows.values() for one in by_seed.values() for key in one))
        yield f"\n## {part}\n\n| | seeds | {' | '.join(keys)} |\n|---|---|{'---|' * len(keys)}"
        for name, by_seed in rows.items():
            cells = [
                " / ".join(f"{one[key]:.3g}" for one in by_seed.values())
                for key in keys
                if key in next(iter(by_seed.values()))
            ]
            yield f"| {name} | {', '.join(map(str, by_seed))} | {' | '.join(cells)} |"
    yield "\n## Floors\n\n| | figure | floor | found | |\n|---|---|---|---|---|"
    for (part, name), floors in FLOORS.items():
        for key, way, floor in floors:
            values = [one[key] for one in found.get((part, name), {}).values()]
            yield floor_line(f"{part}, {name}", key, way, floor, values)
    for part, name, other, key, compare, floor in COMPARED:
        ours, theirs = found.get((part, name), {}), found.get((part, other), {})
        values = [compare(ours[seed][key], theirs[seed][key]) for seed in ours if seed in theirs]
        kind = "times" if compare(4, 2) == 2 and compare(9, 3) == 3 else "more by"
        yield floor_line(f"{part}, {name} against {other}", f"{key}, {kind}", ">=", floor, values)


def floor_line(name: str, key: str, way: str, floor: float, values: list[float]) -> str:
    held = all(value >= floor if way == ">=" else value <= floor for value in values)
    verdict = "not measured" if not values else "holds" if held else "does NOT hold"
    return f"| {name} | {key} | {way} {floor:g} | {' / '.join(f'{value:.3g}' for value in values)} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=list(dict.fromkeys(fit.part for fit in fits())))
    parser.add_argument(
        "--real", type=Path, help="folder that holds davis/DAVIS2016; without it the part real is left out"
    )
    parser.add_argument("--fits", type=int, default=0, help="at most so many fits, then stop; 0 is all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    todo = [
        (fit, seed)
        for seed in args.seeds
        for fit in fits()
        if fit.part in args.parts and (fit.part != "real" or args.real) and not fit.file(args.out, seed).exists()
    ]
    for fit, seed in todo[: args.fits or None]:
        measure = {"between": measure_between}.get(fit.part, measure_known)
        figures = measure_real(fit, seed, args.out, args.real) if fit.part == "real" else measure(fit, seed, args.out)
        write_json(fit.file(args.out, seed), figures)
        print(fit.part, fit.name, seed, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    head = f"`python -m tests.benchmarks.bench_layers_atlas` on {json.dumps(environment())}\n"
    write_text(args.out / "atlas.md", head + "\n".join(lines(args.out)) + "\n")


if __name__ == "__main__":
    main()
