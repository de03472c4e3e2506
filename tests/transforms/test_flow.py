"""Flow under flips, crops and rescaling: by hand, exactly on the levels that are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssvid.features.reading import prepare_pixels
from ssvid.features.views import crop_views
from ssvid.transforms import Cut, Cutter, crop_rectangle, flip_clips, resize_clips, squash
from ssvid.transforms.flow import mirrored, no_motion


def levels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_flip_mirrors_the_places_and_negates_u_exactly() -> None:
    clip = levels(3, 2, 5, 7)
    turned = mirrored(clip, -3)
    for x in range(7):
        assert torch.equal(turned[:, 0, :, x].int(), 256 - clip[:, 0, :, 6 - x].int())
        assert torch.equal(turned[:, 1, :, x], clip[:, 1, :, 6 - x])
    assert torch.equal(mirrored(turned, -3), clip)
    as_float = mirrored(clip.float() / 255, -3)
    assert torch.allclose(as_float, turned.float() / 255, atol=1e-6)
    still = torch.full((1, 2, 1, 4, 4), 128 / 255)
    assert torch.equal(mirrored(still, 1), still)
    pictures = levels(3, 3, 5, 7)
    assert torch.equal(mirrored(pictures, -3), pictures.flip(-1))


def test_only_the_flipped_clips_of_a_batch_are_flipped() -> None:
    clips = levels(2, 2, 3, 4, 4).float() / 255
    flipped = flip_clips(clips, torch.tensor([True, False]))
    assert torch.equal(flipped[1], clips[1])
    assert torch.equal(flipped[0], mirrored(clips[0], 0))
    views = levels(2, 3, 2, 3, 4, 4).float() / 255  # B V C T H W
    assert torch.equal(flip_clips(views, torch.tensor([False, True]))[1, 2], mirrored(views[1, 2], 0))


def test_a_rescaled_clip_moves_by_as_many_times_more_or_less() -> None:
    clip = torch.full((2, 2, 8, 12), 128, dtype=torch.uint8)
    clip[:, 0], clip[:, 1] = 128 + 36, 128 - 20
    small = squash(clip, 4)  # a third of the width, half of the height
    assert small.shape == (2, 2, 4, 4)
    assert (small[:, 0] == 128 + 12).all() and (small[:, 1] == 128 - 10).all()
    large = squash(clip, 24)
    assert (large[:, 0] == 128 + 72).all() and (large[:, 1] == 128 - 60).all()
    assert (squash(clip, 48)[:, 0] == 255).all()  # 144 levels: cut to the bound
    assert torch.equal(squash(clip[..., :8], 8), clip[..., :8])


def test_floats_are_rescaled_without_rounding() -> None:
    clip = levels(1, 2, 3, 8, 8).float() / 255
    motion = resize_clips(clip, 4) - no_motion(torch.float32)
    plain = torch.nn.functional.interpolate(clip[0].transpose(0, 1), size=(4, 4), mode="bilinear", antialias=True)
    assert torch.allclose(motion[0].transpose(0, 1), (plain - 128 / 255) / 2, atol=1e-6)
    frames = levels(3, 2, 10, 20)
    prepared = prepare_pixels(frames, 5, 5)
    assert prepared.shape == (3, 2, 5, 5)
    still = prepare_pixels(torch.full((1, 2, 10, 20), 128, dtype=torch.uint8), 5, 5)
    assert torch.equal(still, torch.full_like(still, 128 / 255))
    moving = torch.full((1, 2, 10, 20), 128 + 40, dtype=torch.uint8)
    assert torch.allclose(prepare_pixels(moving, 5, 5), torch.full((1, 2, 5, 5), (128 + 20) / 255), atol=1e-6)


def test_a_crop_leaves_motion_as_it_is() -> None:
    clip = levels(2, 2, 9, 9)
    assert torch.equal(crop_rectangle(clip, (1, 2, 5, 5), 5), clip[:, :, 1:6, 2:7])


def test_cut_frames_are_those_of_whole_frames() -> None:
    clip = levels(4, 2, 12, 16)
    rectangle = (1, 2, 9, 11)
    cutter = Cutter(Cut(0, (rectangle,), 6), 4, 12, 16, 2)
    for place in (2, 0, 3, 1):
        cutter.put(place, clip[place].permute(1, 2, 0).numpy())
    assert torch.equal(cutter.clip(), crop_rectangle(clip, rectangle, 6))
    untouched = Cutter(Cut(0, (rectangle,), 6), 2, 12, 16, 2).clip()
    assert (untouched == 128).all()  # a video that cannot be read does not move
    assert (Cutter(Cut(0, (rectangle,), 6), 2, 12, 16).clip() == 0).all()


def test_the_mirrored_views_of_a_test_are_mirrored_motion() -> None:
    resized = levels(2, 3, 2, 8, 10).transpose(1, 2).reshape(2, 3, 2, 8, 10).float() / 255  # V T C H W
    views = crop_views(resized, 6, 10)
    assert views.shape == (20, 2, 3, 6, 6)
    assert torch.equal(views[5], mirrored(views[0], 0))
    assert torch.equal(views[:5, 1], views[5:10, 1].flip(-1))


@pytest.mark.parametrize("size", [5, 16])
def test_rescaling_and_mirroring_commute(size: int) -> None:
    clip = levels(2, 2, 12, 12)
    one, other = squash(mirrored(clip, 1), size), mirrored(squash(clip, size), 1)
    assert np.abs(one.int().numpy() - other.int().numpy()).max() <= 1  # a half is rounded to either side
