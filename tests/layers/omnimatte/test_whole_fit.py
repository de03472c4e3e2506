"""One whole fit of a scene that is known: the shadow goes with its object."""

import pytest
import torch

from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import composite, dropped
from ssvid.layers.motion import measure_motion
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.measures import iou, mean_alpha, psnr, removal_psnr
from ssvid.video.synthetic_effects import to_bytes, walkers


@pytest.mark.slow
@pytest.mark.parametrize("pan_px", [0.0, 44.0])
def test_a_shadow_goes_with_its_object(pan_px):
    torch.set_num_threads(1)
    scene = walkers(3, num_objects=1, pan_px=pan_px)
    clip = LayerClip(scene.frames(), scene.masks(), scene.names, 10.0)
    model = fit_omnimatte(clip, measure_motion(clip.frames_THWC), OmnimatteConfig(iterations=300), seed=3)
    clean, shadow = to_bytes(scene.background()), scene.effect_mask("walker", "shadow")
    region = clip.masks_NTHW[0] | shadow
    alpha = model.raw_layers()[0, ..., 3]
    behind = model.background_frames(*clip.size)
    removed = composite(behind, dropped(model.layers(*clip.size), "walker"))
    figures = removal_psnr(removed, clean, clip.frames_THWC, clip.masks_NTHW[0], region)
    assert mean_alpha(alpha, shadow) >= 0.3
    assert iou(alpha, region) >= 0.75 > iou(clip.masks_NTHW[0].astype(float), region)
    assert figures["removal"] >= 33
    assert figures["removal"] >= figures["mask_only"] + 10 >= figures["untouched"] + 10
    assert psnr(behind, clean) >= 36
    assert psnr(model.without("walker", clip.frames_THWC), to_bytes(scene.shown({})), region) >= 33
