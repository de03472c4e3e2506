"""Atlases of a scene whose layers are known: the figures that say what holds, and the ablation that shows what each loss is for.

The lecture's table has one PSNR for each loss left out. PSNR is not what most losses are for: each shows in a figure of its own, in
``SHOWS``. And none shows on every scene: see ``scene_of_ablation``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from ssvid.layers.atlas.config import FAST, PUBLISHED, AtlasConfig
from ssvid.layers.atlas.editing import apply_edit
from ssvid.layers.atlas.fitting import fit_atlas
from ssvid.layers.atlas.model import AtlasModel
from ssvid.layers.atlas.pictures import covered
from ssvid.layers.atlas.quality import alpha_iou, between_pixels, centroids, psnr, shape_of, track_errors, unseen_energy
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import grid_px, measure_motion
from ssvid.video.synthetic_layers import Grain, KnownLayers, LayeredScene, draw_layered_scene, render_layers

BODIES: Final = ("fg", "fg2")  # what the objects of a scene are called
_NUM_POINTS, _NUM_OTHERS, _DOT_PX = 60, 9, 5
_SURE, _SURER = 0.9, 0.99  # how much of a layer must be seen for its points to count
KNOWN: Final = replace(FAST, iterations=600)  # what floors are stated for
_WEIGHTS: Final = PUBLISHED.weights
ABLATION: Final[Mapping[str, AtlasConfig]] = MappingProxyType(
    {
        "complete": PUBLISHED,
        "no flow": replace(PUBLISHED, weights=replace(_WEIGHTS, flow=0)),
        "no rigidity": replace(PUBLISHED, weights=replace(_WEIGHTS, rigidity=0, global_rigidity=0)),
        "no sparsity": replace(PUBLISHED, weights=replace(_WEIGHTS, sparsity=0)),
        # As fine as what is exported.
        "grid atlas": replace(PUBLISHED, atlas="grid", texels_per_px=PUBLISHED.export_scale),
    }
)
# Of each ablation, the figure that it is seen in, and how many times that of the complete model it is at least.
SHOWS: Final[Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "no flow": ("track_worst", 3.0),
        "no rigidity": ("stretch", 3.0),
        "no sparsity": ("unseen_energy", 10.0),
        "grid atlas": ("track_worst", 3.0),
    }
)
LECTURE_PSNR: Final[Mapping[str, float]] = MappingProxyType(  # of the lecture's table, in dB
    {"complete": 29.85, "no rigidity": 29.63, "no flow": 27.74, "no sparsity": 28.80}
)
Figures = dict[str, float]


@dataclass(frozen=True)
class Ablated:
    """One line of the ablation. figures: as ``known_figures``. steps: after how many steps the curves are known; psnr: of the first, middle and last
    frame; track_px: ``track_worst``. model: at the end.
    """

    name: str
    figures: Figures
    steps: tuple[int, ...]
    psnr: tuple[float, ...]
    track_px: tuple[float, ...]
    model: AtlasModel = field(repr=False, compare=False)


def filmed(scene: LayeredScene, known: KnownLayers) -> LayerClip:
    """The clip of a scene, with its true masks."""
    return LayerClip(known.frames_THWC, known.masks(), BODIES[: len(scene.bodies)], 25.0)


def scene_of_ablation(seed: int) -> LayeredScene:
    """12 frames of a texture with cells of 5 px.

    From frame to frame the body goes 5 px, farther than its colors are alike. Where it goes half as far, or its texture has coarse octaves
    too, colors alone pull a mapping that begins as the identity into place, and tracks show neither flow nor the kind of the atlas; where the
    texture is stronger, colors hold it in place, and rigidity is not seen; where the body turns by 90 degrees, the complete model loses it too.
    """
    return draw_layered_scene(seed, num_frames=12, grain=Grain((5.0,)))


def ablated(
    name: str,
    seed: int,
    iterations: int = PUBLISHED.iterations,
    every: int = 100,
    on_step: Callable[[int], None] | None = None,
) -> Ablated:
    """Fit one line of ``ABLATION`` to ``scene_of_ablation``, and watch it.

    Differs: scene, networks and number of iterations are small. The lecture tells PSNR alone (29.85 dB; without rigidity 29.63, flow 27.74,
    sparsity 28.80); here each line has all figures, and is judged by the one of ``SHOWS``.

    Args:
        name: of ``ABLATION``. seed: of scene and fit. every: after how many steps the curves have a point. on_step: told the number of the
            step.
    """
    scene = scene_of_ablation(seed)
    known = render_layers(scene)
    clip = filmed(scene, known)
    points: list[tuple[int, float, float]] = []

    def watch(model: AtlasModel, losses: Mapping[str, float]) -> None:
        if model.step % every == 0 or model.step == iterations:
            points.append((model.step, _few_frames(model, clip), all_tracks(model, scene, known)["track_worst"]))
        if on_step is not None:
            on_step(model.step)

    config = replace(ABLATION[name], iterations=iterations)
    model = fit_atlas(clip, measure_motion(clip.frames_THWC), config, seed=seed, on_step=watch)
    steps, dbs, tracks = zip(*points, strict=True)
    return Ablated(name, known_figures(model, scene, known), steps, dbs, tracks, model)


def _few_frames(model: AtlasModel, clip: LayerClip) -> float:
    times = [0, clip.num_frames // 2, clip.num_frames - 1]
    return psnr(model.recompose(*clip.size, times), clip.frames_THWC[times])


def known_figures(model: AtlasModel, scene: LayeredScene, known: KnownLayers) -> Figures:
    """All that can be said of a model of ``filmed``.

    psnr, psnr_object: in dB. alpha_iou: of the worst object. track_NAME, track_NAME_p95: mean and 95th percentile of the errors of points
    of the middle frame, looked up in eight others, in px; track_worst: the mean of the layer where it is largest. edit_NAME_max: how far a
    dot that is painted on the atlas lies from where it should, the most over all frames that show it whole, in px; edit_NAME_frames: how
    many do. stretch, folded, unseen_energy: of the first object, see ``ssvid.layers.atlas.quality``.
    """
    size, times = (scene.height, scene.width), range(scene.num_frames)
    shown, masks = model.recompose(*size, times), known.masks()
    seen_LTHW = model.weights(*size, times)
    uv_THW2 = model.uv_px(BODIES[0], *size, times)
    shape = shape_of(uv_THW2, known.weights()[0] > _SURE, model.config.export_scale)
    figures = {
        "psnr": psnr(shown, known.frames_THWC),
        "psnr_object": psnr(shown, known.frames_THWC, np.asarray(masks.any(axis=0))),
        "alpha_iou": min(alpha_iou(found, mask) for found, mask in zip(seen_LTHW[:-1], masks, strict=True)),
        "stretch": shape.stretch,
        "folded": shape.folded,
        "unseen_energy": _energy(model, uv_THW2),
    }
    figures |= all_tracks(model, scene, known)
    for layer in range(scene.num_layers):
        figures |= edit_figures(model, scene, known, layer)
    return figures


def track_figures(model: AtlasModel, scene: LayeredScene, known: KnownLayers, layer: int) -> Figures:
    """Points of the middle frame, looked up by their place in the atlas in eight other frames, where they are seen there."""
    middle, name, size = scene.num_frames // 2, model.names[layer], (scene.height, scene.width)
    seen_THW = known.weights()[layer] > _SURE
    inside = np.argwhere(seen_THW[middle])[:, ::-1]
    start_N2 = inside[np.random.default_rng(layer).integers(0, len(inside), _NUM_POINTS)].astype(float)
    ends_TN2 = np.full((scene.num_frames, _NUM_POINTS, 2), np.nan)
    for t in np.unique(np.linspace(0, scene.num_frames - 1, _NUM_OTHERS).round().astype(int)):
        if t == middle:
            continue
        there_N2 = scene.moved(layer, start_N2, middle, t)
        inside_N = ((there_N2 >= 0) & (there_N2 <= (scene.width - 1, scene.height - 1))).all(axis=1)
        seen_N = inside_N & (between_pixels(seen_THW[t][..., None], there_N2)[:, 0] == 1)
        ends_TN2[t, seen_N] = there_N2[seen_N]
    times = range(scene.num_frames)
    errors = track_errors(
        model.uv_px(name, *size, times), model.weights(*size, times)[layer], middle, start_N2, ends_TN2
    )
    return {f"track_{name}": float(np.nanmean(errors)), f"track_{name}_p95": float(np.nanpercentile(errors, 95))}


def all_tracks(model: AtlasModel, scene: LayeredScene, known: KnownLayers) -> Figures:
    """``track_figures`` of every layer, and ``track_worst``."""
    figures: Figures = {}
    for layer in range(scene.num_layers):
        figures |= track_figures(model, scene, known, layer)
    return figures | {"track_worst": max(figures[f"track_{name}"] for name in model.names)}


def edit_figures(model: AtlasModel, scene: LayeredScene, known: KnownLayers, layer: int) -> Figures:
    """A white dot painted on the atlas and brought to black frames, beside what the middle frame shows of it, carried along by the truth."""
    middle, name, size = scene.num_frames // 2, model.names[layer], (scene.height, scene.width)
    seen_THW, times = known.weights()[layer] > _SURER, range(scene.num_frames)
    uv_HW2 = model.uv_px(name, *size, [middle])[0]
    place = between_pixels(uv_HW2, _place_for_a_dot(scene, seen_THW, layer, middle)[None])[0]
    exported, painted = model.atlas_rgba(name), model.atlas_rgba(name)
    dot = np.hypot(*np.moveaxis(grid_px(*painted.shape[:2]) - place, -1, 0)) < _DOT_PX * model.config.export_scale
    exported[dot], painted[dot] = (0, 0, 0, 255), 255
    shown_THW = apply_edit(np.zeros_like(known.frames_THWC), model, name, exported, painted)[..., 0] / 255.0
    xy_P2 = grid_px(*size).reshape(-1, 2).astype(float)
    true_THW = np.stack(
        [
            between_pixels(shown_THW[middle][..., None], scene.moved(layer, xy_P2, t, middle)).reshape(size)
            for t in times
        ]
    )
    is_whole = np.array([bool(seen[true > 0.01].all()) for seen, true in zip(seen_THW, true_THW, strict=True)])
    is_whole &= true_THW.sum(axis=(1, 2)) > 0.5 * true_THW[middle].sum()
    gaps_T = np.linalg.norm(centroids(shown_THW) - centroids(true_THW), axis=1)[is_whole]
    largest = float(np.nan_to_num(gaps_T, nan=np.inf).max(initial=0.0))
    return {f"edit_{name}_max": largest, f"edit_{name}_frames": float(is_whole.sum())}


def _place_for_a_dot(scene: LayeredScene, seen_THW: np.ndarray, layer: int, middle: int) -> np.ndarray:
    """The place in the middle frame, x and y, around which most frames see a whole dot."""
    candidates_N2 = np.argwhere(seen_THW[middle])[::3, ::-1].astype(float)
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring_82 = (_DOT_PX + 2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rim_M2 = (candidates_N2[:, None] + ring_82).reshape(-1, 2)
    counts_N = np.zeros(len(candidates_N2))
    for t, seen_HW in enumerate(seen_THW):
        there = np.rint(scene.moved(layer, rim_M2, middle, t)).astype(int)
        inside = ((there >= 0) & (there < (scene.width, scene.height))).all(axis=1)
        column, row = there.clip(0, (scene.width - 1, scene.height - 1)).T
        counts_N += (seen_HW[row, column] & inside).reshape(-1, len(ring_82)).all(axis=1)
    place: np.ndarray = candidates_N2[counts_N.argmax()]
    return place


def _energy(model: AtlasModel, uv_THW2: np.ndarray) -> float:
    """Of the atlas of the first object, where pixels lie and none shows it."""
    rgba, scale = model.atlas_rgba(model.names[0]), model.config.export_scale
    coarse = tuple(int(side / scale) + 1 for side in rgba.shape[:2])
    reached = covered(uv_THW2 / scale, np.ones(uv_THW2.shape[:3]), *coarse) > 0
    rows, columns = ((np.arange(side) / scale).astype(int) for side in rgba.shape[:2])
    return unseen_energy(rgba[..., :3] / 255, rgba[..., 3] / 255, reached[rows][:, columns])
