"""How large frames become, by the rules of the published programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssvid.errors import RecipeError
from ssvid.evals.label_propagation.sizing import frame_size, resize_frame
from ssvid.features.propagation_protocol import PropagationProtocol, check_protocol, protocol_problems

DINO = {"size_rule": "short_side", "size_px": 480, "multiple_px": 64, "multiple_sides": "other"}
DINOV3 = {"size_rule": "short_side", "size_px": 960, "multiple_px": 16, "multiple_rounding": "up"}
VIP_CROPMAE = {"size_rule": "long_side", "size_px": 880, "multiple_px": 64, "multiple_sides": "other"}


@pytest.mark.parametrize(
    ("knobs", "video", "expected"),
    [
        ({"size_rule": "native"}, (480, 854), (480, 854)),
        ({"size_rule": "native", "multiple_px": 16}, (480, 854), (480, 848)),
        ({"size_rule": "square", "size_px": 320}, (480, 854), (320, 320)),
        ({"size_rule": "exact", "size_px": 480, "width_px": 880}, (480, 854), (480, 880)),
        (DINO, (480, 854), (480, 832)),
        (DINO, (1080, 1920), (480, 832)),
        (DINO, (854, 480), (832, 480)),
        (DINOV3, (480, 854), (960, 1712)),
        (DINOV3, (480, 910), (960, 1824)),
        (VIP_CROPMAE, (1080, 1920), (448, 880)),
        (VIP_CROPMAE, (1920, 1080), (880, 448)),
        ({"multiple_px": 64, "multiple_rounding": "nearest"}, (480, 854), (512, 832)),
        ({"size_px": 16, "multiple_px": 64}, (480, 854), (64, 64)),
    ],
)
def test_sizes(knobs: dict[str, Any], video: tuple[int, int], expected: tuple[int, int]) -> None:
    assert frame_size(*video, PropagationProtocol(**knobs)) == expected


def test_frames_are_resized_as_pillow_does() -> None:
    frame_HWC = np.random.default_rng(0).integers(0, 256, (60, 107, 3), dtype=np.uint8)
    frame_CHW = torch.from_numpy(frame_HWC).permute(2, 0, 1)
    kinds = {
        "nearest_exact": (Image.Resampling.NEAREST, 0),
        "bilinear": (Image.Resampling.BILINEAR, 1),
        "bicubic": (3, 1),
    }
    for name, (kind, most) in kinds.items():
        found = resize_frame(frame_CHW, (30, 50), PropagationProtocol(frame_resampling=name))
        expected = np.array(Image.fromarray(frame_HWC).resize((50, 30), kind))
        assert found.dtype == torch.uint8
        off = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected)
        assert off.max() <= most, name
    assert resize_frame(frame_CHW, (60, 107), PropagationProtocol()) is frame_CHW


def test_values_that_do_not_go_together_are_told_at_once() -> None:
    wrong = PropagationProtocol(size_rule="exact", first_frame=False, num_previous=0, top_k=-1, feedback="softly")
    problems = protocol_problems(wrong, "track.")
    assert len(problems) == 4
    for words in (
        "track.width_px (0) must be above 0 where track.size_rule is exact. Set track.width_px=880.",
        "track.num_previous (0) must be at least 1 where track.first_frame is false",
        "track.top_k (-1) must be at least 0. Set track.top_k=10.",
        "track.feedback ('softly') must be one of soft, min_max, hard (did you mean 'soft'?)",
    ):
        assert any(words in problem for problem in problems), words
    with pytest.raises(RecipeError, match="width_px"):
        check_protocol(wrong)
    check_protocol(PropagationProtocol())
