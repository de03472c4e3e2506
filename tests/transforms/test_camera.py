"""A camera taken out of clips: known motions are found, time reversed gives the opposite ones exactly, what moves by itself stays."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssvid.transforms.camera import (
    affine_motion,
    camera_path,
    fit_affine,
    frame_motion,
    stabilized,
    without_camera,
)

SIDE = 64


def scene(seed=0):
    """A large smooth texture, of which a camera sees the middle half."""
    grid = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(seed))
    return 0.5 + F.interpolate(grid, (256, 256), mode="bicubic", align_corners=True) / 8


def seen(texture, x=0.0, y=0.0, zoom=1.0, angle=0.0, side=SIDE):
    """What a camera at (x, y), in half frames of its own, sees: (1, side, side)."""
    a, b = 0.5 * zoom * math.cos(angle), 0.5 * zoom * math.sin(angle)
    theta = torch.tensor([[[a, -b, 0.5 * x], [b, a, 0.5 * y]]])
    grid = F.affine_grid(theta, (1, 1, side, side), align_corners=False)
    return F.grid_sample(texture, grid, align_corners=False)[:, 0]


@pytest.mark.parametrize(
    "camera",
    [
        {"x": 0.06},
        {"y": -0.11},
        {"zoom": 1.03},
        {"angle": 0.02},
        {"x": -0.03, "y": 0.05, "zoom": 0.98, "angle": -0.015},
    ],
    ids=str,
)
def test_a_known_camera_is_found_within_a_tenth_of_a_pixel(camera):
    texture = scene()
    found = frame_motion(seen(texture), seen(texture, **camera))[0]
    # A place X of the scene is at p in the first frame and at q in the second: X = p = x + zoom R(angle) q.
    x, y, zoom, angle = (camera.get(name, usual) for name, usual in (("x", 0), ("y", 0), ("zoom", 1), ("angle", 0)))
    corners = torch.tensor([[-0.7, -0.7], [0.7, -0.7], [0.0, 0.0], [-0.7, 0.7], [0.7, 0.7]])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    there = (corners - torch.tensor([x, y], dtype=torch.float)) @ turn / zoom
    halfway = (corners + there) / 2
    told = found[:, 0] + halfway @ found[:, 1:].T
    assert (told - (there - corners)).abs().max() * SIDE / 2 < 0.1


def panned(frames=8, **pace):
    """A clip (1, 3, T, SIDE, SIDE) of a still scene by a camera of that pace."""
    texture = scene(3)
    views = [seen(texture, **{k: (1 if k == "zoom" else 0) + v * t for k, v in pace.items()}) for t in range(frames)]
    return torch.stack(views, dim=1)[:, None].expand(1, 3, frames, SIDE, SIDE)


@pytest.mark.parametrize("pace", [{"x": 0.03}, {"zoom": -0.015}, {"angle": 0.01, "y": 0.02}], ids=str)
@pytest.mark.parametrize("frames", [7, 8])
def test_a_still_scene_stands_still_whatever_the_camera_does(pace, frames):
    clip = panned(frames, **pace)
    steady = stabilized(clip)
    kept = (steady != 0).all(dim=2).all(dim=1)[0]
    assert kept.float().mean() > 0.4
    moved, rest = (float(c.diff(dim=2).abs()[..., kept].mean()) for c in (clip, steady))
    assert rest < 0.2 * moved


def test_what_was_not_seen_at_every_instant_is_black_in_every_frame():
    steady = stabilized(panned(9, x=0.04))
    black = (steady == 0).all(dim=1)[0]
    assert black.any() and torch.equal(black, black[:1].expand_as(black))


@pytest.mark.parametrize("frames", [7, 8])
def test_time_reversed_gives_the_same_frames_in_reverse(frames):
    clip = panned(frames, x=0.02, zoom=0.01)
    torch.testing.assert_close(stabilized(clip.flip(2)), stabilized(clip).flip(2), rtol=1e-5, atol=1e-6)
    before, after = clip[:, 0, 0], clip[:, 0, 1]
    torch.testing.assert_close(frame_motion(after, before), -frame_motion(before, after), rtol=1e-5, atol=1e-7)


def test_a_still_camera_changes_nothing():
    clip = panned(6)
    torch.testing.assert_close(stabilized(clip), clip, rtol=0, atol=1e-5)
    eye = torch.eye(3).expand(1, 6, 3, 3)
    torch.testing.assert_close(camera_path(clip[:, 0]), eye, rtol=0, atol=1e-6)
    even = torch.full((1, 3, 6, SIDE, SIDE), 0.4)
    torch.testing.assert_close(stabilized(even), even)  # no texture: no motion, and no division by nothing
    assert stabilized(clip[:, :, :1]).shape == (1, 3, 1, SIDE, SIDE)


def test_an_actor_on_a_still_ground_is_not_followed():
    clip = panned(8).clone()
    for t in range(8):
        clip[:, :, t, 20:32, 8 + 4 * t : 20 + 4 * t] = 1.0
    torch.testing.assert_close(camera_path(clip[:, 0]), torch.eye(3).expand(1, 8, 3, 3), rtol=0, atol=2e-3)


# ---- flow


def field(side=20):
    """An affine field (1, side, side, 2), a loop in float64."""
    cells = [(2 * i + 1) / side - 1 for i in range(side)]
    rows = [[[0.03 + 0.2 * x - 0.1 * y, -0.05 - 0.04 * x + 0.3 * y] for x in cells] for y in cells]
    return torch.tensor([rows], dtype=torch.float64)


def test_an_affine_field_is_found_exactly_though_something_moves_by_itself():
    motion = field()
    expected = torch.tensor([[[0.03, 0.2, -0.1], [-0.05, -0.04, 0.3]]], dtype=torch.float64)
    torch.testing.assert_close(fit_affine(motion), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(affine_motion(expected, motion), motion, rtol=0, atol=1e-12)
    motion[:, 3:8, 3:8] += 0.5  # a sixteenth of the picture
    assert (fit_affine(motion) - expected).abs().max() < 0.01


def test_flow_without_its_camera_keeps_what_moves_by_itself_and_is_opposite_in_reverse():
    motion = field().permute(0, 3, 1, 2)[:, :, None].repeat(1, 1, 4, 1, 1)
    motion[:, 0, :, 3:8, 3:8] += 0.25
    flow = motion / 4 + 128 / 255
    steady = without_camera(flow) - 128 / 255
    assert steady[..., 12:, 12:].abs().max() < 0.004
    assert (steady[:, 0, :, 3:8, 3:8] - 0.0625).abs().max() < 0.006
    backward = without_camera(256 / 255 - flow.flip(2)) - 128 / 255
    torch.testing.assert_close(backward, -steady.flip(2), rtol=0, atol=1e-12)
