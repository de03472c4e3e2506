"""A real clip, small and shortly fitted: what the atlas says of where things go, beside a tracker that no loss uses."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ssvid.layers.atlas import FAST, fit_atlas
from ssvid.layers.atlas.editing import apply_edit
from ssvid.layers.atlas.quality import alpha_iou, between_pixels, corners_in, lucas_kanade, places_of
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import measure_motion

T, SIZE = 8, (54, 96)


@pytest.mark.real
def test_paint_on_the_swan_stays_on_the_swan(real_data):
    folder = real_data / "davis" / "DAVIS2016"
    pictures = sorted((folder / "JPEGImages/480p/blackswan").glob("*.jpg"))[:T]
    frames = np.stack([np.asarray(Image.open(picture).convert("RGB")) for picture in pictures])
    masks = np.stack(
        [
            np.asarray(Image.open(folder / "Annotations/480p/blackswan" / f"{p.stem}.png").convert("L")) > 127
            for p in pictures
        ]
    )
    whole = LayerClip(frames, masks[None], ("swan",), 24.0)
    clip = whole.resized(*SIZE)
    model = fit_atlas(clip, measure_motion(clip.frames_THWC), dataclasses.replace(FAST, iterations=80))
    weights = model.weights(*SIZE, range(T))
    assert alpha_iou(weights[0], clip.masks_NTHW[0]) > 0.9

    points = corners_in(frames[0], masks[0], 60)
    tracks = lucas_kanade(frames, 0, T - 1, points)
    to_small = SIZE[1] / frames.shape[2]
    begun, ended = ((xy[tracks.found_N] + 0.5) * to_small - 0.5 for xy in (tracks.start_N2, tracks.end_N2))
    uv = model.uv_px("swan", *SIZE, [0, T - 1])
    gaps = np.linalg.norm(places_of(uv[1], weights[0, -1], between_pixels(uv[0], begun)) - ended, axis=1)
    assert len(gaps) > 20
    assert np.median(gaps) < 0.5

    exported = model.atlas_rgba("swan")
    red = exported.copy()
    red[..., :3] = (255, 0, 0)
    edited = apply_edit(frames, model, "swan", exported, red)
    redder = (edited[..., 0].astype(int) - frames[..., 0] > 60) & (edited[..., 1] < 90)
    assert alpha_iou(redder, masks) > 0.8
    assert np.array_equal(edited[:, :40, :100], frames[:, :40, :100])  # water, far from the swan
