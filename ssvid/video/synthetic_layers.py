"""Videos whose layers are known: textured bodies that move before a ground that pans, with alphas and with the place of every pixel.

A ``LayeredScene`` is a pure function of a seed. ``render_layers(scene, times)`` draws it at any times, between frames too. Where a point
of a body or of the ground is seen, and which point is seen at a pixel, is known exactly, both ways.

Units: places in px of the frame (x to the right, y down, pixel centers at whole numbers); canonical places in px of the layer itself, from the
middle of a body, or from the middle of the ground; times in numbers of frames, with fractions. Layers are counted from the front: bodies
first, the ground is the last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

_TEXELS = 4  # of a texture, for each px
_WAVE_PX = 24.0  # the length of a wave through a body that bends
_INVERSIONS = 30
_REACH = 1.5  # of the texture of a body, in radii


@dataclass(frozen=True)
class Grain:
    """What is seen in a texture: colored noise of several sizes, added.

    cells_px: how far apart the values of each size lie; what is less than about 4 px across cannot be followed. light, color: how much
    brightness and each color vary in each size, as standard deviations of colors in [0, 1].
    """

    cells_px: tuple[float, ...] = (16.0, 7.0, 4.0)
    light: float = 0.13
    color: float = 0.07


MIXED_GRAIN: Final = Grain()


@dataclass(frozen=True)
class Body:
    """One object: a blob with a texture, which is shifted, turned and scaled from the first frame to the last one, and may bend.

    start_px, way_px: x, y of its middle in the first frame, and how far it goes. bow_px: how far its way is bent. turn: radians, growth: by how
    much it is larger at the end. radius_px: at the beginning. lobes: (number, depth, phase) of its outline. texture_HW3: float in [0, 1],
    4 texels for each px. wave_px: how far waves shift its parts; 0 of a rigid body.
    """

    start_px: tuple[float, float]
    way_px: tuple[float, float]
    bow_px: float
    turn: float
    growth: float
    radius_px: float
    lobes: tuple[tuple[int, float, float], ...]
    texture_HW3: np.ndarray
    wave_px: float = 0.0


@dataclass(frozen=True)
class LayeredScene:
    """Bodies, that in front first, before a ground that moves by ``pan_px`` (x, y) from the first frame to the last."""

    height: int
    width: int
    num_frames: int
    bodies: tuple[Body, ...]
    ground_HW3: np.ndarray
    pan_px: tuple[float, float]

    @property
    def num_layers(self) -> int:
        """Bodies and the ground."""
        return len(self.bodies) + 1

    def to_frame(self, layer: int, canonical_N2: np.ndarray, time: float) -> np.ndarray:
        """Where points of a layer are seen at a time, (N, 2)."""
        if layer == len(self.bodies):
            return canonical_N2 + self._ground_px(time)
        matrix, middle = self._pose(layer, time)
        return (canonical_N2 + self._wave(layer, canonical_N2, time)) @ matrix.T + middle

    def to_canonical(self, layer: int, xy_N2: np.ndarray, time: float) -> np.ndarray:
        """Which points of a layer are seen at places of the frame, whether or not the layer reaches so far, (N, 2)."""
        if layer == len(self.bodies):
            return xy_N2 - self._ground_px(time)
        matrix, middle = self._pose(layer, time)
        bent_N2 = (xy_N2 - middle) @ np.linalg.inv(matrix).T
        found_N2 = bent_N2
        if self.bodies[layer].wave_px:
            for _ in range(_INVERSIONS):  # a contraction: waves are flat
                found_N2 = bent_N2 - self._wave(layer, found_N2, time)
        return found_N2

    def moved(self, layer: int, xy_N2: np.ndarray, time: float, other_time: float) -> np.ndarray:
        """Where the points of a layer that are seen at these places are at another time, (N, 2)."""
        return self.to_frame(layer, self.to_canonical(layer, xy_N2, time), other_time)

    def opacity(self, body: int, xy_N2: np.ndarray, time: float) -> np.ndarray:
        """Alpha of a body at places of the frame, (N,) in [0, 1]; its edge is one px wide."""
        own, canonical_N2 = self.bodies[body], self.to_canonical(body, xy_N2, time)
        angle_N = np.arctan2(canonical_N2[:, 1], canonical_N2[:, 0])
        rim_N = own.radius_px * (1 + sum(depth * np.cos(n * angle_N + phase) for n, depth, phase in own.lobes))
        scale = 1 + own.growth * self._share(time)
        inside_px_N: np.ndarray = (rim_N - np.hypot(*canonical_N2.T)) * scale
        return (inside_px_N + 0.5).clip(0, 1)

    def color(self, layer: int, canonical_N2: np.ndarray) -> np.ndarray:
        """Of points of a layer, (N, 3) in [0, 1]."""
        texture_HW3 = self.ground_HW3 if layer == len(self.bodies) else self.bodies[layer].texture_HW3
        return _looked_up(texture_HW3, canonical_N2)

    def _share(self, time: float) -> float:
        return time / (self.num_frames - 1)

    def _ground_px(self, time: float) -> np.ndarray:
        middle = (np.array([self.width, self.height]) - 1) / 2
        return middle + np.array(self.pan_px) * (self._share(time) - 0.5)

    def _pose(self, body: int, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (2, 2) and middle (2,) of a body."""
        own, share = self.bodies[body], self._share(time)
        angle, scale = own.turn * share, 1 + own.growth * share
        matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        bow = np.array([0.0, own.bow_px * math.sin(math.pi * share)])
        return matrix, np.array(own.start_px) + share * np.array(own.way_px) + bow

    def _wave(self, body: int, canonical_N2: np.ndarray, time: float) -> np.ndarray:
        """By how much points of a body are shifted: a wave that runs along it, and one across."""
        own = self.bodies[body]
        phase = 4 * math.pi * self._share(time)
        along_N, across_N = 2 * math.pi * canonical_N2.T / _WAVE_PX
        return own.wave_px * np.stack([0.5 * np.sin(across_N - phase), np.sin(along_N + phase)], axis=1)


@dataclass(frozen=True)
class KnownLayers:
    """A rendered scene. frames_THWC: uint8. alphas_NTHW: float32, of each of N bodies by itself."""

    frames_THWC: np.ndarray
    alphas_NTHW: np.ndarray

    def weights(self) -> np.ndarray:
        """How much is seen of each layer, 1 in all: (L, T, H, W)."""
        ones = np.ones_like(self.alphas_NTHW[:1])
        passed = np.concatenate([ones, np.cumprod(1 - self.alphas_NTHW, axis=0)])
        weights: np.ndarray = passed * np.concatenate([self.alphas_NTHW, ones])
        return weights

    def masks(self) -> np.ndarray:
        """bool NTHW, where more than half of what is seen is of a body."""
        masks: np.ndarray = self.weights()[:-1] > 0.5
        return masks


def draw_layered_scene(
    seed: int,
    *,
    num_bodies: int = 1,
    bending_px: float = 0.0,
    height: int = 72,
    width: int = 128,
    num_frames: int = 20,
    grain: Grain = MIXED_GRAIN,
) -> LayeredScene:
    """A scene with bodies that cross the picture, turning by 50 degrees and growing by 15 percent, before a ground that pans.

    Args:
        num_bodies: 1 or 2; the second goes the other way, behind the first. bending_px: how far waves run through them.
        grain: of the textures of bodies and ground.

    Raises:
        ValueError: another number of bodies.
    """
    if num_bodies not in (1, 2):
        raise ValueError(f"num_bodies ({num_bodies}) must be 1 or 2.")
    rng = np.random.default_rng([seed, 11])
    pan_px = (-0.28 * width, 0.03 * height)
    ground = smooth_texture(rng, 1.2 * height, 1.2 * width + abs(pan_px[0]), grain)
    radius_px = height * (0.236 if num_bodies == 1 else 0.18)
    bodies = [
        _drawn_body(rng, number, num_bodies, radius_px, bending_px, (height, width), grain)
        for number in range(num_bodies)
    ]
    return LayeredScene(height, width, num_frames, tuple(bodies), ground, pan_px)


def _drawn_body(
    rng: np.random.Generator,
    number: int,
    num_bodies: int,
    radius_px: float,
    bending_px: float,
    size: tuple[int, int],
    grain: Grain,
) -> Body:
    height, width = size
    side = 1 if number == 0 else -1
    level = 0.46 if num_bodies == 1 else (0.38, 0.6)[number]
    lobes = tuple((n, float(rng.uniform(0.05, 0.3 / n)), float(rng.uniform(0, 2 * math.pi))) for n in (2, 3, 4))
    return Body(
        start_px=((0.5 - side * 0.21) * width, level * height),
        way_px=(side * 0.42 * width, 0.04 * height),
        bow_px=0.05 * height,
        turn=side * math.radians(50),
        growth=0.15,
        radius_px=radius_px,
        lobes=lobes,
        texture_HW3=smooth_texture(rng, 2 * _REACH * radius_px, 2 * _REACH * radius_px, grain),
        wave_px=bending_px,
    )


def smooth_texture(
    rng: np.random.Generator, height_px: float, width_px: float, grain: Grain = MIXED_GRAIN
) -> np.ndarray:
    """A grain over a color drawn at random: float32 HW3 in [0, 1], 4 texels for each px."""
    sides = [math.ceil(side * _TEXELS) + 1 for side in (height_px, width_px)]
    noise = torch.zeros(1, 3, *sides)
    for cell in grain.cells_px:
        cells = [max(2, round(side / cell) + 1) for side in (height_px, width_px)]
        light, color = (rng.standard_normal((1, channels, *cells), dtype=np.float32) for channels in (1, 3))
        values = torch.from_numpy(grain.light * light + grain.color * color)
        noise += F.interpolate(values, sides, mode="bicubic", align_corners=True)
    base = rng.uniform(0.35, 0.65, 3).astype(np.float32)
    texture: np.ndarray = base + noise[0].permute(1, 2, 0).numpy()
    return texture.clip(0, 1)


def _looked_up(texture_HW3: np.ndarray, canonical_N2: np.ndarray) -> np.ndarray:
    """Colors (N, 3) of a texture whose middle is (0, 0), between its texels; what lies outside has those of the border."""
    sides = np.array([texture_HW3.shape[1], texture_HW3.shape[0]]) - 1
    grid = torch.from_numpy((canonical_N2 * (2 * _TEXELS) / sides).astype(np.float32))[None, None]
    picture = torch.from_numpy(texture_HW3).permute(2, 0, 1)[None]
    found = F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return found[0, :, 0].T.numpy()


def pixels_of(height: int, width: int) -> np.ndarray:
    """The middles of all pixels of a frame, x and y, row by row: float64 (P, 2)."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(float)


def render_layers(scene: LayeredScene, times_T: Sequence[float] | None = None) -> KnownLayers:
    """Draw a scene at times, numbers of frames with fractions; at all its frames where they are None."""
    times_T = range(scene.num_frames) if times_T is None else times_T
    xy_P2 = pixels_of(scene.height, scene.width)
    frames, alphas = [], []
    for time in times_T:
        own_NP = np.stack([scene.opacity(body, xy_P2, time) for body in range(len(scene.bodies))])
        color_P3 = scene.color(len(scene.bodies), scene.to_canonical(len(scene.bodies), xy_P2, time))
        for body in reversed(range(len(scene.bodies))):
            front_P3 = scene.color(body, scene.to_canonical(body, xy_P2, time))
            color_P3 = color_P3 + own_NP[body][:, None] * (front_P3 - color_P3)
        frames.append(np.rint(255 * color_P3).astype(np.uint8).reshape(scene.height, scene.width, 3))
        alphas.append(own_NP.reshape(-1, scene.height, scene.width))
    return KnownLayers(np.stack(frames), np.stack(alphas, axis=1).astype(np.float32))
