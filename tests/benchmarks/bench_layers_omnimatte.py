"""Omnimatte against scenes whose layers are known, in which order effects are learned, and two real clips for the eye.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.bench_layers_omnimatte --out build/omnimatte [--seeds 0 1 2] [--only KIND ...]

Two objects with a shadow each, a panning camera and the order of learning are fitted once for each seed; DAVIS car-shadow and a walker of
Weizmann once, where SSVID_REAL_DATA is set. Figures and fits are kept in OUT/fits and not done again, so that the command can be stopped
and given again. Writes omnimatte.md with every figure beside its floor, and the pictures and films of the real clips.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ssvid.files import write_atomic
from ssvid.layers.background import grown
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import (
    Layer,
    as_background,
    composite,
    grayed,
    played,
    retimed,
    standing,
    trail,
)
from ssvid.layers.motion import measure_motion
from ssvid.layers.omnimatte.config import OmnimatteConfig, fit_size
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.known import EFFECTS, filmed, known_figures, learned
from ssvid.layers.omnimatte.measures import iou, is_in_order, psnr
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.machine import environment
from ssvid.pictures import row, sheet
from ssvid.video import open_video, read_clips
from ssvid.video.optical_flow import require_opencv
from ssvid.video.synthetic_effects import EffectScene, over, to_bytes, walkers
from ssvid.video.writer import write_video

ORDERS = {
    "order": "complete",
    "order-no-flow": "no flow in the input",
    "order-mask-alone": "mask alone as input",
}
REAL = ("car", "walker")
# figure -> (at least or at most, floor)
FLOORS: dict[str, dict[str, tuple[str, float]]] = {
    "two": {
        "alpha in its own shadow": (">=", 0.5),
        "alpha in the other's shadow": ("<=", 0.15),
        "IoU with object and shadow": (">=", 0.75),
        "removal within the region, dB": (">=", 40),
        "clean background, dB": (">=", 38),
        "reconstruction, dB": (">=", 34),
        "new background, dB": (">=", 29),
        "logo under object and shadow, dB": (">=", 28),
        "retimed, dB": (">=", 36),
    },
    "pan": {"removal within the region, dB": (">=", 33), "IoU with object and shadow": (">=", 0.75)},
    "order": {"near before far before own motion": (">=", 1)},
    "order-no-flow": {"near before far before own motion": (">=", 1)},
    "order-mask-alone": {"near before far before own motion": (">=", 1)},
    "car": {"CPU seconds": ("<=", 90)},
    "walker": {"CPU seconds": ("<=", 90)},
}
TITLES = {
    "two": "Two objects, each with its shadow",
    "pan": "One object, the camera pans 44 px",
    "order": "What is learned first: iteration at which half of an effect is reconstructed",
    "order-no-flow": "The same without flow in the input",
    "order-mask-alone": "The same with the mask as the only input: no flow, no noise",
    "car": "DAVIS car-shadow, 24 frames; removed at 480p",
    "walker": "Weizmann, daria_walk, 28 frames",
}


# ---- fits


def fitted(clip: LayerClip, config: OmnimatteConfig, seed: int, file: Path) -> tuple[OmnimatteModel, float]:
    """A model, and the CPU seconds of flow, camera and fit; kept in ``file`` every 100 steps, and gone on from there."""
    kept = torch.load(file, weights_only=True) if file.is_file() else {"state": None, "seconds": 0.0}
    started = time.process_time()

    def keep(model: OmnimatteModel, losses: Mapping[str, float]) -> None:
        if model.step % 100 == 0:
            spent = kept["seconds"] + time.process_time() - started
            write_atomic(file, lambda opened: torch.save({"state": model.state(), "seconds": spent}, opened))

    motion = measure_motion(clip.frames_THWC)
    model = fit_omnimatte(clip, motion, config, seed=seed, on_step=keep, state=kept["state"])
    ended = kept["state"] is not None and kept["state"]["step"] == model.step
    return model, kept["seconds"] + (0.0 if ended else time.process_time() - started)


def known(scene: EffectScene, seed: int, config: OmnimatteConfig, file: Path) -> dict[str, float]:
    """All figures of a scene with shadows; of several objects, the worst one's."""
    clip = filmed(scene)
    model, seconds = fitted(clip, config, seed, file)
    figures = {"CPU seconds": seconds, "memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    layers, behind = model.layers(*clip.size), model.background_frames(*clip.size)
    return figures | known_figures(model, scene, clip) | edited(scene, model, layers, behind)


def edited(scene: EffectScene, model: OmnimatteModel, layers: Sequence[Layer], behind: np.ndarray) -> dict[str, float]:
    """New background, logo and retiming against the scene drawn anew."""
    num_frames, camera = scene.num_frames, model.camera(scene.height, scene.width)
    clean = scene.background()
    new = 1 - clean
    logo = standing(mark(26, 16), (35, 24), camera, num_frames // 2, (scene.height, scene.width))
    marked = over(clean, logo.rgba_THW4.astype(np.float32) / np.array([255.0] * 4, np.float32))
    maps = {name: np.arange(num_frames)[::-1] for name in scene.names}
    maps[scene.names[0]] = np.arange(num_frames) // 2
    return {
        "new background, dB": psnr(composite(to_bytes(new), layers), to_bytes(over_ground(scene, new))),
        "logo under object and shadow, dB": psnr(
            composite(behind, [logo, *layers]), to_bytes(over_ground(scene, marked))
        ),
        "retimed, dB": psnr(played(behind, layers, maps, camera), to_bytes(scene.shown(maps))),
    }


def over_ground(scene: EffectScene, ground_THWC: np.ndarray) -> np.ndarray:
    for actor in reversed(scene.actors):
        ground_THWC = over(ground_THWC, np.stack([scene.layer(actor, t, t) for t in range(scene.num_frames)]))
    return ground_THWC


def mark(width: int, height: int, text: str = "") -> np.ndarray:
    """A logo, RGBA."""
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle([0, 0, width - 1, height - 1], radius=height // 4, fill=(230, 190, 40, 255))
    if text:
        draw.text(
            (width // 2, height // 2),
            text,
            fill=(40, 40, 120, 255),
            font=ImageFont.load_default(height * 0.7),
            anchor="mm",
        )
    return np.asarray(image)


def order_of_learning(name: str, seed: int) -> dict[str, Any]:
    started = time.process_time()
    found = learned(name, seed)
    return {
        **{f"half of {effect}, iteration": found.halves[effect] for effect in EFFECTS},
        "near before far before own motion": int(is_in_order(found.halves, EFFECTS)),
        "CPU seconds": time.process_time() - started,
        "steps": list(found.steps),
        "curves": {effect: [round(share, 4) for share in shares] for effect, shares in found.shares.items()},
    }


# ---- real clips


def real_data() -> Path | None:
    return Path(os.environ["SSVID_REAL_DATA"]) if "SSVID_REAL_DATA" in os.environ else None


def car(seed: int, out: Path, file: Path) -> dict[str, float]:
    """Fitted small, removed from the frames of 480p."""
    davis = real_data() / "davis" / "DAVIS2016"  # type: ignore[operator]
    frames = np.stack(
        [np.asarray(Image.open(davis / f"JPEGImages/480p/car-shadow/{t:05d}.jpg").convert("RGB")) for t in range(24)]
    )
    masks = np.stack([np.asarray(Image.open(davis / f"Annotations/480p/car-shadow/{t:05d}.png")) for t in range(24)])
    masks = (masks if masks.ndim == 3 else masks[..., 0]) > 0
    large = LayerClip(frames, masks[None], ("car",), 24.0)
    small = large.resized(*fit_size(*large.size, OmnimatteConfig().short_side_px))
    model, seconds = fitted(small, OmnimatteConfig(), seed, file)
    started = time.process_time()
    removed = model.without("car", frames)
    full_seconds = time.process_time() - started
    behind = model.full_background(frames)
    shown = [0, 6, 12, 18, 23]
    picture = [frames, on_checks(model.detailed_layers(frames)[0]), behind, removed]
    save(out / "car.png", sheet([row([half(one[t]) for t in shown]) for one in picture]))
    save(out / "car_canvas.png", model.full_canvas(frames)[0])
    write_video(out / "car_removed.mp4", even(removed), 24.0)
    outside = ~np.any(grown(large.masks_NTHW[0], 12), axis=0)[None].repeat(24, 0) & ~grown(large.masks_NTHW[0], 12)
    return {
        "CPU seconds": seconds,
        "CPU seconds at 480p": full_seconds,
        "reconstruction, dB": psnr(
            composite(model.background_frames(*small.size), model.layers(*small.size)), small.frames_THWC
        ),
        "full background where no car ever is, dB": psnr(behind, frames, outside),
        "least inliers of a step": float(model.inliers.min()),
        "canvas filled in, share": float(1 - model.seen.mean()),
        "memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def walker(seed: int, out: Path, file: Path) -> dict[str, float]:
    """Masks without a network, then all that can be done with a walker."""
    root = real_data()
    with open_video(root / "weizmann" / "walk" / "daria_walk.avi") as reader:  # type: ignore[operator]
        (every_TCHW,) = read_clips(reader, [np.arange(reader.info.num_frames)])
    every = every_TCHW.permute(0, 2, 3, 1).numpy()
    masks_T = moving(every)
    chosen = best_window(masks_T, 28, stride=2)
    frames, masks = every[chosen], masks_T[chosen]
    large = LayerClip(frames, masks[None], ("walker",), 12.5)
    small = large.resized(*fit_size(*large.size, 96))
    model, seconds = fitted(small, OmnimatteConfig(iterations=400), seed, file)
    layers, behind = model.detailed_layers(frames), model.full_background(frames)
    height, width = large.size
    camera = model.camera(height, width)
    street = np.asarray(
        Image.open(root / "davis/DAVIS2016/JPEGImages/480p/car-shadow/00039.jpg").convert("RGB")  # type: ignore[operator]
    )
    logo = standing(mark(70, 26, "ssvid"), (60, 92), camera, 0, (height, width))
    still = [retimed(layer, np.full(len(frames), 14), camera) for layer in layers]
    films = {
        "video": frames,
        "layer": on_checks(layers[0]),
        "removed": model.without("walker", frames),
        "logo": composite(behind, [logo, *layers]),
        "new_background": composite(as_background(street, len(frames), height, width), layers),
        "color_pop": composite(grayed(behind), layers),
        "frozen_twin": composite(behind, [*still, *layers]),
        "trail": composite(behind, trail(layers[0], 5, 3, canvas=camera)),
    }
    for name, film in films.items():
        write_video(out / f"walker_{name}.mp4", even(film), 12.5)
    save(out / "walker.png", sheet([row([film[t] for t in (2, 8, 14, 20, 26)]) for film in films.values()]))
    return {
        "CPU seconds": seconds,
        "reconstruction, dB": psnr(
            composite(model.background_frames(*small.size), model.layers(*small.size)), small.frames_THWC
        ),
        "with details, in the original size, dB": psnr(composite(behind, layers), frames),
        "video against its background, dB": psnr(behind, frames),
        "alpha against the mask, IoU": iou(model.raw_layers()[0, ..., 3], small.masks_NTHW[0]),
    }


def moving(frames_THWC: np.ndarray) -> np.ndarray:
    """The largest thing that differs from the median in each frame: bool THW."""
    cv2: Any = require_opencv()
    median = np.median(frames_THWC, axis=0)
    masks = []
    for frame in frames_THWC:
        differs = (np.abs(frame - median).max(axis=2) > 25).astype(np.uint8)
        closed = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
        masks.append(labels == 1 + np.argmax(stats[1:, 4]) if count > 1 else np.zeros(labels.shape, bool))
    return np.stack(masks)


def best_window(masks_THW: np.ndarray, num_frames: int, stride: int) -> np.ndarray:
    """The frames in which the object is seen best where it is seen least."""
    span = (num_frames - 1) * stride + 1
    areas = masks_THW.sum(axis=(1, 2))
    starts = range(len(areas) - span + 1)
    first = max(starts, key=lambda start: areas[start : start + span : stride].min())
    return np.arange(first, first + span, stride)


def on_checks(layer: Layer) -> np.ndarray:
    """A layer over a board of squares."""
    num_frames, height, width = layer.rgba_THW4.shape[:3]
    y, x = np.mgrid[:height, :width]
    squares = np.where((y // 8 + x // 8) % 2, 205, 160).astype(np.uint8)
    return composite(np.repeat(squares[None, ..., None], num_frames, 0).repeat(3, 3), [layer])


def half(picture_HWC: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture_HWC).reduce(2))


def even(film_THWC: np.ndarray) -> np.ndarray:
    return film_THWC[:, : film_THWC.shape[1] // 2 * 2, : film_THWC.shape[2] // 2 * 2]


def save(path: Path, picture_HWC: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_HWC).save(path)


# ---- words


def job(kind: str, seed: int, out: Path) -> dict[str, Any]:
    """Figures of one fit."""
    file, config = out / "fits" / f"{kind}-{seed}.pt", OmnimatteConfig()
    if kind == "two":
        return known(walkers(seed), seed, config, file)
    if kind == "pan":
        scene = walkers(seed, num_objects=1, pan_px=44.0)
        return known(scene, seed, replace(config, iterations=400), file)
    if kind in ORDERS:
        return order_of_learning(ORDERS[kind], seed)
    return (car if kind == "car" else walker)(seed, out, file)


def table(kind: str, results: Mapping[int, Mapping[str, Any]]) -> str:
    """Figures of all seeds, those with a floor first."""
    floors = FLOORS[kind]
    names = [name for name, value in next(iter(results.values())).items() if not isinstance(value, list | dict)]
    lines = [
        f"| figure | floor | {' | '.join(f'seed {seed}' for seed in results)} | holds |",
        "|---|---|" + "---|" * (len(results) + 1),
    ]
    for name in sorted(names, key=lambda name: list(floors).index(name) if name in floors else len(floors)):
        values = [result[name] for result in results.values()]
        sign, floor = floors.get(name, ("", 0.0))
        held = all(value >= floor if sign == ">=" else value <= floor for value in values) if sign else None
        verdict = "" if held is None else "yes" if held else "**no**"
        shown = " | ".join("never" if value is None else f"{value:.4g}" for value in values)
        lines.append(f"| {name} | {f'{sign} {floor:g}' if sign else ''} | {shown} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = ["# Omnimatte"]
    for kind in TITLES:
        results = {}
        for seed in args.seeds if kind not in REAL else args.seeds[:1]:
            file = args.out / "fits" / f"{kind}-{seed}.json"
            if not file.is_file() and kind in args.only and (kind not in REAL or real_data() is not None):
                found = json.dumps(job(kind, seed, args.out), indent=1)
                write_atomic(file, lambda opened, found=found: opened.write(found.encode()))
                print(kind, seed, found, flush=True)
            if file.is_file():
                results[seed] = json.loads(file.read_text())
        if results:
            parts.append(f"## {TITLES[kind]}\n\n{table(kind, results)}")
    text = "\n\n".join([*parts, f"`{environment()}`\n"])
    write_atomic(args.out / "omnimatte.md", lambda opened: opened.write(text.encode()))


if __name__ == "__main__":
    main()
