"""What a fit leaves in its folder: layers, background, atlases, and the figures that judge them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import minimum_filter

from ssvid.files import write_atomic, write_picture, write_pictures
from ssvid.layers.atlas import AtlasModel
from ssvid.layers.atlas.quality import corners_in, lucas_kanade, psnr, track_errors
from ssvid.layers.background import at_size, views
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import Layer, composite
from ssvid.layers.detectors import (
    OBJECT_ALPHA,
    Finding,
    find_alpha,
    find_background,
    find_copies,
    find_correspondence,
    kept_shares,
)
from ssvid.layers.motion import Canvas
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.video.optical_flow import resized

_MOST_TRACKS = 200
_WINDOW_HALF_PX = 7  # of the tracker


@dataclass(frozen=True)
class Written:
    """What was written of a fit. layers: that in the back first, at the size of the video, as background_THWC and recomposed_THWC are.

    canvas: where frames lie on the background, at the size of the video. findings: figures of the fit. pictures: file -> what it is.
    """

    layers: Sequence[Layer]
    background_THWC: np.ndarray
    recomposed_THWC: np.ndarray
    canvas: Canvas
    findings: Sequence[Finding]
    pictures: Mapping[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """What layers.json keeps of it."""
        canvas = self.canvas
        return {
            "camera": {"to_canvas_T33": canvas.to_canvas_T33.tolist(), "height": canvas.height, "width": canvas.width}
        }


def write_omnimatte(folder: Path, model: OmnimatteModel, clip: LayerClip, small: LayerClip) -> Written:
    """Layers with the details of the video, and the background that was seen, into a folder.

    Args:
        clip: at the size of the video. small: that which was fitted.
    """
    height, width = clip.size
    canvas = model.camera(height, width)
    picture_HWC, seen_HW = model.full_canvas(clip.frames_THWC)
    # What was filmed stays as sharp as it was: the median of other frames stands in only where a layer is.
    covered_THW = _anywhere(model.footprints())
    background_THWC = uncovered_frames(clip.frames_THWC, views(picture_HWC, canvas, height, width), covered_THW)
    layers = model.detailed_layers(clip.frames_THWC, background_THWC)
    _write_layers(folder, layers, background_THWC)
    write_picture(folder / "background.png", picture_HWC)
    findings = [*_omnimatte_findings(model, small), _filled(seen_HW)]
    files = {"background.png": "the background as one picture, from what frames show of it"}
    return Written(layers, background_THWC, composite(background_THWC, layers), canvas, findings, files)


def write_atlas(folder: Path, model: AtlasModel, clip: LayerClip, small: LayerClip, canvas: Canvas) -> Written:
    """Atlases to paint on, layers cut out of the video, and the background into a folder.

    Args:
        clip: at the size of the video. small: that which was fitted. canvas: where its frames lie on the background.
    """
    size, times_T = small.size, range(small.num_frames)
    alphas_NTHW = model.alphas(*size, times_T)
    layers = [
        Layer(name, _cut_out(clip.frames_THWC, alpha_THW))
        for name, alpha_THW in zip(small.names, alphas_NTHW, strict=True)
    ][::-1]
    behind_THWC = _bytes(model.colors("background", *size, times_T))
    background_THWC = uncovered_frames(clip.frames_THWC, behind_THWC, 1 - np.prod(1 - alphas_NTHW, axis=0))
    _write_layers(folder, layers, background_THWC)
    files = {}
    for name in model.names:
        write_picture(folder / "atlas" / f"{name}.png", model.atlas_rgba(name))
        write_arrays(folder / "atlas" / f"{name}.npz", uv_px_THW2=model.uv_px(name, *size, times_T))
        files[f"atlas/{name}.png"] = f"the atlas of {name}: paint on it"
    write_picture(folder / "background.png", model.atlas_rgba("background")[..., :3])
    recomposed_THWC = model.recompose(*size, times_T)
    findings = _atlas_findings(model, clip, small, alphas_NTHW, recomposed_THWC)
    large_THWC = np.stack([resized(one_HWC, *clip.size) for one_HWC in recomposed_THWC])
    return Written(layers, background_THWC, large_THWC, at_size(canvas, size, clip.size), findings, files)


def _write_layers(folder: Path, layers: Sequence[Layer], background_THWC: np.ndarray) -> None:
    for layer in layers:
        write_pictures(folder / "layers" / layer.name, layer.rgba_THW4)
    write_pictures(folder / "background", background_THWC)


def _cut_out(frames_THWC: np.ndarray, alpha_THW: np.ndarray) -> np.ndarray:
    """The video with an alpha that was fitted at a smaller size."""
    large = [resized(alpha_HW, *frames_THWC.shape[1:3]) for alpha_HW in alpha_THW]
    return np.concatenate([frames_THWC, _bytes(np.stack(large))[..., None]], axis=3)


def uncovered_frames(frames_THWC: np.ndarray, behind_THWC: np.ndarray, covered_THW: np.ndarray) -> np.ndarray:
    """The video where no object is, and what was found behind objects.

    Args:
        behind_THWC, covered_THW: at any size; how much of each pixel an object covers.
    """
    pictures = []
    for frame_HWC, small_HWC, covered_HW in zip(frames_THWC, behind_THWC, covered_THW, strict=True):
        height, width = frame_HWC.shape[:2]
        share_HW1 = resized(covered_HW.astype(np.float32), height, width)[..., None]
        pictures.append(share_HW1 * resized(small_HWC, height, width) + (1 - share_HW1) * frame_HWC)
    return np.stack(pictures).round().clip(0, 255).astype(np.uint8)


def _bytes(shares: np.ndarray) -> np.ndarray:
    return (shares * 255).round().clip(0, 255).astype(np.uint8)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Arrays as an ``.npz``, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_atomic(path, lambda opened: opened.write(file.getvalue()))


# ---- figures


def _omnimatte_findings(model: OmnimatteModel, small: LayerClip) -> list[Finding]:
    """At the size of the fit."""
    frames_THWC, masks_THW = small.frames_THWC, _anywhere(small.masks_NTHW)
    layers, behind_THWC = model.layers(*small.size), model.background_frames(*small.size)
    found_THWC = composite(behind_THWC, layers)
    masked_THWC = np.where(masks_THW[..., None], frames_THWC, behind_THWC)
    findings = [
        _recomposed(
            found_THWC,
            frames_THWC,
            {"the background alone": behind_THWC, "the background, objects cut out by their masks": masked_THWC},
        )
    ]
    alphas_NTHW = model.raw_layers()[..., 3]
    for name, alphas_THW, own_THW in zip(small.names, alphas_NTHW, small.masks_NTHW, strict=True):
        findings.append(find_alpha(name, alphas_THW, own_THW, has_effects=True))
        effect_THW = (alphas_THW > OBJECT_ALPHA) & ~masks_THW
        if effect_THW.any():
            decibels, beside = (psnr(one, frames_THWC, effect_THW) for one in (found_THWC, behind_THWC))
            findings.append(
                Finding(
                    f"{name}: PSNR where its layer reaches beyond its mask",
                    decibels,
                    f"{decibels:.1f} dB",
                    beside=f"the background in its place {beside:.1f} dB",
                )
            )
    free_THW = ~masks_THW & ~_anywhere(alphas_NTHW >= OBJECT_ALPHA)
    if free_THW.any():
        findings.append(find_background(psnr(behind_THWC, frames_THWC, free_THW)))
    return findings


def _atlas_findings(
    model: AtlasModel, clip: LayerClip, small: LayerClip, alphas_NTHW: np.ndarray, recomposed_THWC: np.ndarray
) -> list[Finding]:
    """At the size of the fit; tracks at that of the video."""
    frames_THWC, times_T, middle = small.frames_THWC, range(small.num_frames), small.num_frames // 2
    findings = [
        _recomposed(
            recomposed_THWC[1:],
            frames_THWC[1:],
            {"each frame taken for the next one": frames_THWC[:-1], "the middle one for all": frames_THWC[middle]},
        )
    ]
    weights_LTHW = model.weights(*small.size, times_T)
    for number, name in enumerate(model.names):
        uv_px_THW2, weights_THW = model.uv_px(name, *small.size, times_T), weights_LTHW[number]
        is_object = name != "background"
        if is_object:
            where_THW = small.masks_NTHW[number]
            findings.append(find_alpha(name, alphas_NTHW[number], where_THW, has_effects=False))
            cell_px = 4.0 * model.config.export_scale
            kept_T = kept_shares(uv_px_THW2, weights_THW, cell_px)
            findings.append(find_copies(name, kept_T, _anywhere(where_THW.reshape(len(where_THW), -1).T)))
        own_NTHW = clip.masks_NTHW[[number]] if is_object else clip.masks_NTHW
        at_HW = _anywhere(own_NTHW[:, middle])
        errors = _errors_of_tracks(clip, at_HW if is_object else ~at_HW, uv_px_THW2, weights_THW)
        findings.append(find_correspondence(name, errors))
    return findings


def _errors_of_tracks(
    clip: LayerClip, where_HW: np.ndarray, uv_px_THW2: np.ndarray, weights_THW: np.ndarray
) -> list[float]:
    """Of points of the middle frame, followed at the size of the video by what no loss has seen: px of the fit.

    Args:
        clip: at the size of the video. where_HW: where points may lie in its middle frame; the window of the tracker must lie there.
    """
    frames_THWC, middle = clip.frames_THWC, clip.num_frames // 2
    inner_HW = minimum_filter(where_HW, 2 * _WINDOW_HALF_PX + 1, mode="constant", cval=1)
    corners_N2 = corners_in(frames_THWC[middle], inner_HW, _MOST_TRACKS)
    known_TN2 = np.full((clip.num_frames, *corners_N2.shape), np.nan)
    for t in range(clip.num_frames):
        if t != middle:
            tracks = lucas_kanade(frames_THWC, middle, t, corners_N2)
            known_TN2[t] = np.where(tracks.found_N[:, None], tracks.end_N2, np.nan)
    to_fit = np.array(uv_px_THW2.shape[2:0:-1]) / np.array(clip.size[::-1])
    starts_N2, known_TN2 = ((places + 0.5) * to_fit - 0.5 for places in (corners_N2, known_TN2))
    errors_TN = track_errors(uv_px_THW2, weights_THW, middle, starts_N2, known_TN2)
    found: list[float] = errors_TN[np.isfinite(errors_TN)].tolist()
    return found


def _recomposed(found: np.ndarray, frames: np.ndarray, anchors: Mapping[str, np.ndarray]) -> Finding:
    decibels = psnr(found, frames)
    beside = ", ".join(
        f"{name} {psnr(np.broadcast_to(one, frames.shape), frames):.1f} dB" for name, one in anchors.items()
    )
    return Finding("all layers together: PSNR to the video", decibels, f"{decibels:.1f} dB", beside=beside)


def _anywhere(where: np.ndarray) -> np.ndarray:
    """Whether any of the first axis is true."""
    found: np.ndarray = np.asarray(where.any(axis=0))
    return found


def _filled(seen_HW: np.ndarray) -> Finding:
    share = float(1 - seen_HW.mean())
    return Finding(
        "background: places that no frame shows, filled from around", share, f"{100 * share:.1f} % of the canvas"
    )
