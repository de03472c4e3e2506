"""Videos whose motion, speed and masks are known: a scene is drawn once, then rendered at any instants you like.

A ``Scene`` is a pure function of a seed. ``render(scene, times)`` gives pixels and ground truth at *continuous* times,
so that "twice as fast" can mean truly rendered at twice the speed and not only frames left out.

The classes are motions. Looks, size, place, direction and speed are drawn independently of the class, so that only
movement tells the class. Motions obey simple laws (friction, gravity, damping, Kepler), so that order, speed and
direction can be seen: see each function in ``ssvid.video.synthetic_motions`` for its law.

The classes of a second set, ``DIRECTIONS``, are directions of a steady motion on a plain scene: of every frame alone the
place, angle and size have the same distribution in all of them, so that no single frame tells the class.

The classes of a third set, ``IRREVERSIBLE``, are motions that lose energy or spread, and are set going again, on a scene where
nothing else moves: played backward, each breaks its law within a second.

Those of a fourth set, ``ACTIONS``, are done once from their beginning to their end, and how far each frame is in its action is known:
see ``ssvid.video.synthetic_actions``.

Units: positions in pixels of the rendered frame (x to the right, y down, pixel centers at whole numbers), angles in
radians, times in seconds of video. Scene time is ``speed * (time + start)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F

from ssvid.video.synthetic_actions import ACTIONS, progress
from ssvid.video.synthetic_motions import DIRECTIONS, IRREVERSIBLE, LAWS, NATURAL, UPRIGHT, Path, periods

SPEED_RANGE = (0.75, 1.35)  # times the natural tempo; drawn log-uniformly, independently of the class
NUM_SPRITES = 2  # 0 is the actor, 1 the distractor (behind it)
_TEXTURE_PX = 72
_TEXTURE_REACH = 1.5  # a texture spans [-1.5, 1.5] sprite radii
_POINTS_PER_SPRITE = 8
_BACKGROUND_POINTS = 16
_PLAIN_GRAY = 110.0  # the background of a plain scene
_PLAIN_RADIUS = 1.4  # times the usual one, of the actor of a plain scene
_GLOW = (255.0, 225.0, 160.0)  # the color of what is hottest
_ELSEWHERE = -8.0  # frame sizes: where the distractor of a calm scene stands, unseen


@dataclass(frozen=True)
class Scene:
    """One scene, ready to be rendered at any times.

    motion: the class. speed: factor on the natural tempo. direction: angle of the motion's axis in radians.
    turn: +1 or -1, the sense of rotations. start: seconds of video that passed before time 0.
    natural: the motion's own constants, in frame heights and seconds of scene time.
    center_px: where the motion takes place. radius_px: of the actor and the distractor.
    seed: entropy of everything that is seen (textures, light, camera, distractor).
    calm: even light, a still camera, no distractor in sight. plain: calm, and before an even gray background.
    """

    motion: str
    size_px: int
    speed: float
    direction: float
    turn: int
    start: float
    natural: Mapping[str, float]
    center_px: tuple[float, float]
    radius_px: tuple[float, float]
    seed: tuple[int, ...]
    plain: bool = False
    calm: bool = False


@dataclass(frozen=True)
class Poses:
    """Where the sprites are. All (S, T); ``x``, ``y`` in the world, i.e. before the camera offset is subtracted.

    A point at (u, v) sprite radii from a sprite's centroid is seen at
    ``(x, y) - camera + radius_px * scale * R(angle) (u, v)``; ``affine_ST23`` holds that map.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    scale: np.ndarray
    camera_T2: np.ndarray
    affine_ST23: np.ndarray


@dataclass(frozen=True)
class Rendering:
    """Pixels and truth of a scene at ``times``.

    frames_THWC: uint8. masks_STHW: bool, what is *visible* of each sprite (the actor hides the distractor).
    progress_T: how far the actor is in its action, 0 to 1; None where the motion has no beginning and no end.
    tracks_TP2: x, y of points that stick to the actor, the distractor and the background. visible_TP: inside the frame
    and not hidden. point_owner_P: 0 actor, 1 distractor, -1 background.
    """

    times: np.ndarray
    frames_THWC: np.ndarray
    poses: Poses
    masks_STHW: np.ndarray
    tracks_TP2: np.ndarray
    visible_TP: np.ndarray
    point_owner_P: np.ndarray
    progress_T: np.ndarray | None = None


# ------------------------------------------------------------------------------------------------ the scene


def draw_scene(motion: str, seed: Sequence[int], size_px: int = 128) -> Scene:
    """Draw everything about a scene of class ``motion`` from ``seed``.

    The draws do not depend on ``motion`` but for the motion's own constants, which are drawn last.

    Raises:
        ValueError: unknown motion.
    """
    if motion not in NATURAL:
        raise ValueError(f"motion ({motion!r}) must be one of {', '.join(NATURAL)}.")
    rng = np.random.default_rng([*seed, 0])
    speed = math.exp(rng.uniform(*np.log(SPEED_RANGE)))
    direction = rng.uniform(0, 2 * math.pi)
    turn = 1 if rng.random() < 0.5 else -1
    start = rng.uniform(0.0, 2.0)
    center, radius = rng.uniform(0.42, 0.58, 2) * size_px, rng.uniform(0.1, 0.16, 2) * size_px
    natural = {name: rng.uniform(*bounds) for name, bounds in NATURAL[motion].items()}
    natural["radius"] = float(radius[0]) / size_px
    plain = motion in DIRECTIONS
    if plain:  # where the actor is follows from the constants alone; the class says which way it turns
        turn, center, radius = 1, np.full(2, (size_px - 1) / 2), _PLAIN_RADIUS * radius
    if motion in ACTIONS:  # begins with the video, and takes its time as its parts say
        turn, speed, start = 1, 1.0, 0.0
    return Scene(
        motion, size_px, speed, direction, turn, start, MappingProxyType(natural),
        center_px=(float(center[0]), float(center[1])), radius_px=(float(radius[0]), float(radius[1])),
        seed=tuple(int(s) for s in seed), plain=plain, calm=plain or motion in IRREVERSIBLE,
    )  # fmt: skip


def actor_path(scene: Scene, times: np.ndarray) -> Path:
    """World x, y in pixels, angle and scale of the actor's centroid at ``times``; each (T,)."""
    t = scene.speed * (np.asarray(times, dtype=np.float64) + scene.start)
    dx, dy, angle, scale = LAWS[scene.motion](t, scene.natural)
    if scene.motion in UPRIGHT:
        dx, angle = scene.turn * dx, scene.turn * angle
    else:
        dy, angle = scene.turn * dy, scene.turn * angle
        cos, sin = math.cos(scene.direction), math.sin(scene.direction)
        dx, dy, angle = cos * dx - sin * dy, sin * dx + cos * dy, angle + scene.direction
    return scene.center_px[0] + scene.size_px * dx, scene.center_px[1] + scene.size_px * dy, angle, scale


def scene_progress(scene: Scene, times: np.ndarray) -> np.ndarray | None:
    """How far an action is at ``times``, 0 to 1; None of a motion that is none of ``ACTIONS``."""
    if scene.motion not in ACTIONS:
        return None
    return progress(scene.speed * (np.asarray(times, dtype=np.float64) + scene.start), scene.natural)


def scene_poses(scene: Scene, times: Sequence[float] | np.ndarray) -> Poses:
    """Where everything is at ``times`` (seconds of video). Pure arithmetic: no pixel is drawn."""
    times = np.asarray(times, dtype=np.float64)
    t = scene.speed * (times + scene.start)
    rng = np.random.default_rng([*scene.seed, 1])
    camera = np.stack([_sway(rng, t, 0.03), _sway(rng, t, 0.03)], axis=1) * scene.size_px
    actor = actor_path(scene, times)
    home = rng.uniform(0.2, 0.8, 2)
    other = (
        (home[0] + _sway(rng, t, 0.06)) * scene.size_px, (home[1] + _sway(rng, t, 0.06)) * scene.size_px,
        rng.uniform(0, 2 * math.pi) + _sway(rng, t, 0.3), np.ones_like(t),
    )  # fmt: skip
    if scene.calm:
        camera = np.zeros_like(camera)
        other = (np.full_like(t, _ELSEWHERE * scene.size_px), np.full_like(t, _ELSEWHERE * scene.size_px), *other[2:])
    x, y, angle, scale = (np.stack(pair) for pair in zip(actor, other, strict=True))
    size = np.asarray(scene.radius_px)[:, None] * scale
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    rows = [np.stack([cos, -sin, x - camera[:, 0]], -1), np.stack([sin, cos, y - camera[:, 1]], -1)]
    return Poses(x, y, angle, scale, camera, np.stack(rows, axis=-2))


def _sway(rng: np.random.Generator, t: np.ndarray, amplitude: float) -> np.ndarray:
    """A slow, smooth wander: two sines with periods of 2.5 to 7 s."""
    periods, phases = rng.uniform(2.5, 7.0, 2), rng.uniform(0, 2 * math.pi, 2)
    return amplitude * np.sin(2 * math.pi * t[:, None] / periods + phases).mean(axis=1) * math.sqrt(2)


# ------------------------------------------------------------------------------------------------ pixels


def render(scene: Scene, times: Sequence[float] | np.ndarray) -> Rendering:
    """Draw the scene at ``times`` (seconds of video, any order, any spacing).

    A frame depends on its own time alone: rendering a subset of the times gives the same frames.
    """
    times = np.asarray(times, dtype=np.float64)
    poses = scene_poses(scene, times)
    rng = np.random.default_rng([*scene.seed, 2])
    backdrop = _backdrop(rng, scene.size_px)
    sprites = [_sprite(rng) for _ in range(NUM_SPRITES)]
    light = 1.0 + _sway(rng, scene.speed * (times + scene.start), 0.08)
    if scene.calm:
        light = np.ones_like(light)
    if scene.plain:
        backdrop = np.full_like(backdrop, _PLAIN_GRAY)
    patches = [_sprite_patches(sprites[s], poses.affine_ST23[s], scene.size_px) for s in range(NUM_SPRITES)]
    if scene.motion == "cool":
        patches[0] = _glowing(*patches[0], _heat(scene, times))
    frames, masks = _composite(scene, backdrop, patches, poses.camera_T2, light)
    tracks, owner = _tracks(rng, sprites, poses, scene.size_px)
    seen = _visible(tracks, owner, masks)
    return Rendering(times, frames, poses, masks, tracks, seen, owner, scene_progress(scene, times))


def _noise_texture(rng: np.random.Generator, size: int, cells: Sequence[int]) -> np.ndarray:
    """Smooth random texture (H, W, 3) with one octave per entry of ``cells``; about zero mean, unit spread."""
    out = torch.zeros(1, 3, size, size)
    for count in cells:
        grid = torch.from_numpy(rng.standard_normal((1, 3, count, count), dtype=np.float32))
        out += F.interpolate(grid, (size, size), mode="bicubic", align_corners=True)
    return (out / math.sqrt(len(cells)))[0].permute(1, 2, 0).contiguous().numpy()


def _backdrop(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Background (H, W, 3) in grey levels, larger than the frame by the camera's reach on each side."""
    size = size_px + 2 * _margin(size_px)
    base, contrast = rng.uniform(70, 150, 3), rng.uniform(18, 40)
    return (base + contrast * _noise_texture(rng, size, (4, 9, 20))).clip(0, 255).astype(np.float32)


def _margin(size_px: int) -> int:
    return math.ceil(0.03 * math.sqrt(2) * size_px) + 2


def _sprite(rng: np.random.Generator) -> np.ndarray:
    """A textured blob (4, H, W): color times alpha, and alpha, with its centroid in the middle."""
    axis = np.linspace(-_TEXTURE_REACH, _TEXTURE_REACH, _TEXTURE_PX)
    lobes = [(k, rng.uniform(0, 0.5 / k), rng.uniform(0, 2 * math.pi)) for k in (2, 3, 4)]
    shift = np.zeros(2)
    for _ in range(4):  # move the outline until the centroid of the coverage lies at the origin
        u, v = np.meshgrid(axis + shift[0], axis + shift[1])
        phi = np.arctan2(v, u)
        rim = 0.9 + sum(a * np.cos(k * phi + p) for k, a, p in lobes)
        alpha = ((rim - np.hypot(u, v)) / (axis[1] - axis[0]) + 0.5).clip(0, 1)
        x, y = np.meshgrid(axis, axis)
        shift += np.array([(alpha * x).sum(), (alpha * y).sum()]) / alpha.sum()
    base, contrast = rng.uniform(40, 215, 3), rng.uniform(35, 60)
    stripes = np.sin(rng.uniform(3, 7) * (u * math.cos(a := rng.uniform(0, math.pi)) + v * math.sin(a)))
    color = base + contrast * (_noise_texture(rng, _TEXTURE_PX, (3, 6)) + stripes[..., None])
    rgba = np.concatenate([color.clip(0, 255) * alpha[..., None], alpha[..., None]], axis=-1)
    return np.ascontiguousarray(rgba.transpose(2, 0, 1), dtype=np.float32)


def _sprite_patches(sprite: np.ndarray, affine_T23: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Warp a sprite for all frames, within one bounding box size only.

    Returns:
        patches (T, P, P, 4), color times alpha and alpha; corners (T, 2), x and y of each patch's first pixel.
    """
    turn, at = affine_T23[:, :, :2], affine_T23[:, :, 2]
    largest = np.sqrt(np.linalg.det(turn)).max() if len(at) else 1.0
    side = min(2 * math.ceil(largest * _TEXTURE_REACH) + 2, 2 * size_px)
    corners = np.floor(at).astype(np.int64) - side // 2 + 1
    pixels = np.arange(side)
    dx = (corners[:, 0] - at[:, 0])[:, None] + pixels
    dy = (corners[:, 1] - at[:, 1])[:, None] + pixels
    back = np.linalg.inv(turn) / _TEXTURE_REACH
    u = back[:, 0, 0, None, None] * dx[:, None, :] + back[:, 0, 1, None, None] * dy[:, :, None]
    v = back[:, 1, 0, None, None] * dx[:, None, :] + back[:, 1, 1, None, None] * dy[:, :, None]
    grid = torch.from_numpy(np.stack([u, v], axis=-1).astype(np.float32))
    source = torch.from_numpy(sprite).expand(len(at), -1, -1, -1)
    warped = F.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped.permute(0, 2, 3, 1).contiguous().numpy(), corners


def _heat(scene: Scene, times: np.ndarray) -> np.ndarray:
    """How hot the actor is, from 1 down (T,): exp(-c u), u the scene's time since it was heated (Newton's law of cooling)."""
    _, u = periods(scene.speed * (times + scene.start), scene.natural["period"])
    return np.exp(-scene.natural["drag"] * u)


def _glowing(patches_TPP4: np.ndarray, corners: np.ndarray, heat_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches whose color is the nearer to that of a glow the hotter they are."""
    alpha = patches_TPP4[..., 3:]
    share = heat_T.astype(np.float32)[:, None, None, None]
    color = patches_TPP4[..., :3] + share * (np.array(_GLOW, np.float32) * alpha - patches_TPP4[..., :3])
    return np.concatenate([color, alpha], axis=-1), corners


def _composite(
    scene: Scene,
    backdrop: np.ndarray,
    patches: Sequence[tuple[np.ndarray, np.ndarray]],
    camera_T2: np.ndarray,
    light_T: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Backdrop, then the distractor, then the actor; returns frames (T, H, W, 3) uint8 and masks (S, T, H, W)."""
    size, num_frames = scene.size_px, len(light_T)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    masks = np.zeros((NUM_SPRITES, num_frames, size, size), bool)
    for t in range(num_frames):
        frame = _shifted(backdrop, camera_T2[t] + _margin(size), size)
        for s in reversed(range(NUM_SPRITES)):
            patch, corner = patches[s][0][t], patches[s][1][t]
            rows, from_rows = _overlap(corner[1], len(patch), size)
            columns, from_columns = _overlap(corner[0], len(patch), size)
            piece = patch[from_rows, from_columns]
            frame[rows, columns] *= 1 - piece[..., 3:]
            frame[rows, columns] += piece[..., :3]
            covered = piece[..., 3] > 0.5
            masks[s, t, rows, columns] = covered
            masks[s + 1 :, t, rows, columns] &= ~covered
        frame *= np.float32(light_T[t])
        frame += np.float32(0.5)  # then cut off: rounds
        frames[t] = np.clip(frame, 0, 255, out=frame)
    return frames, masks


def _overlap(first: int, length: int, size: int) -> tuple[slice, slice]:
    """The slice of [0, size) that [first, first + length) covers, and the same part in the patch's own count."""
    low, high = min(max(first, 0), size), max(min(first + length, size), 0)
    return slice(low, max(high, low)), slice(low - first, max(high, low) - first)


def _shifted(image: np.ndarray, offset_xy: np.ndarray, size: int) -> np.ndarray:
    """A (size, size) window of ``image`` at a fractional offset, bilinear."""
    x, y = (math.floor(v) for v in offset_xy)
    fx, fy = np.float32(offset_xy[0] - x), np.float32(offset_xy[1] - y)
    window = image[y : y + size + 1, x : x + size + 1]
    rows = window[:-1] + fy * (window[1:] - window[:-1])
    return rows[:, :-1] + fx * (rows[:, 1:] - rows[:, :-1])


def _tracks(
    rng: np.random.Generator, sprites: Sequence[np.ndarray], poses: Poses, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points on each sprite and on the background: x, y (T, P, 2) and owner (P,)."""
    tracks = []
    for s in range(NUM_SPRITES):
        inside = np.argwhere(sprites[s][3] > 0.99)
        picked = inside[rng.integers(0, len(inside), _POINTS_PER_SPRITE)][:, ::-1]  # row, column -> u, v
        uv = picked * (2 * _TEXTURE_REACH / (_TEXTURE_PX - 1)) - _TEXTURE_REACH
        affine = poses.affine_ST23[s]
        tracks.append(np.einsum("tij,pj->tpi", affine[:, :, :2], uv) + affine[:, None, :, 2])
    fixed = rng.uniform(0, size_px - 1, (_BACKGROUND_POINTS, 2))
    tracks.append(fixed[None] - poses.camera_T2[:, None])
    owner = np.repeat([*range(NUM_SPRITES), -1], [_POINTS_PER_SPRITE] * NUM_SPRITES + [_BACKGROUND_POINTS])
    return np.concatenate(tracks, axis=1), owner


def _visible(tracks_TP2: np.ndarray, owner_P: np.ndarray, masks_STHW: np.ndarray) -> np.ndarray:
    """Whether each point lies inside the frame and nothing in front hides it; (T, P) bool."""
    size = masks_STHW.shape[-1]
    at = np.rint(tracks_TP2).astype(np.int64)
    inside = ((at >= 0) & (at < size)).all(axis=-1)
    column, row = np.clip(at, 0, size - 1).transpose(2, 0, 1)
    frame = np.arange(len(at))[:, None]
    on_actor, on_other = (masks_STHW[s, frame, row, column] for s in range(NUM_SPRITES))
    hidden = np.where(owner_P == 0, False, np.where(owner_P == 1, on_actor, on_actor | on_other))
    return inside & ~hidden
