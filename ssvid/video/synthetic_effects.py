"""Videos of objects with effects (shadows, reflections) that are known: what stands behind them, and what each adds, at any moment.

Textures are sums of sine waves, so that they are exact between pixels. Units: px of the frame, x to the right, y down, pixel centers at
whole numbers; places are of the world, in which frame 0 has its corner at (0, 0) and the camera moves. Colors and alphas are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NUM_WAVES = 24
_RIM_PX = 1.0  # over which an object's edge fades
_SOFT_PX = 3.0  # over which an effect's edge fades
_SHADOW_OFFSET_PX = (3.0, 9.0)
_SHADOW_STRENGTH = 0.445  # 0.41 in the mean of where it is at least half as strong


@dataclass(frozen=True)
class Texture:
    """A picture without end: its mean color, and K waves around it in each channel.

    base_C: mean color. waves_K2: radians per px. phases_KC, sizes_KC: of each wave in each channel.
    """

    base_C: np.ndarray
    waves_K2: np.ndarray
    phases_KC: np.ndarray
    sizes_KC: np.ndarray

    def __call__(self, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
        """Colors at places: float32 HWC, or of any shape and C."""
        turns_HWK = x_HW[..., None] * self.waves_K2[:, 0] + y_HW[..., None] * self.waves_K2[:, 1]
        along_KC, across_KC = self.sizes_KC * np.cos(self.phases_KC), self.sizes_KC * np.sin(self.phases_KC)
        waves_HWC = np.sin(turns_HWK) @ along_KC + np.cos(turns_HWK) @ across_KC
        return (self.base_C + waves_HWC).clip(0, 1).astype(np.float32)


@dataclass(frozen=True)
class Effect:
    """A dark, soft ellipse. path_T2: its center. radii_px: half its width and height. strength: alpha in its middle."""

    name: str
    path_T2: np.ndarray
    radii_px: tuple[float, float]
    strength: float


@dataclass(frozen=True)
class Actor:
    """A round object with a texture that moves along, in front of its effects."""

    name: str
    texture: Texture
    path_T2: np.ndarray
    radius_px: float
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class EffectScene:
    """What is seen, and all that is known of it. actors: that in front first. camera_T2: place of each frame's corner in the world."""

    actors: tuple[Actor, ...]
    ground: Texture
    camera_T2: np.ndarray
    height: int
    width: int
    seed: int
    noise: float = 0.01

    @property
    def names(self) -> tuple[str, ...]:
        """Of the actors."""
        return tuple(actor.name for actor in self.actors)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.camera_T2)

    def frames(self) -> np.ndarray:
        """The video, uint8 THWC, with the noise of a camera."""
        clean = self.shown({name: range(self.num_frames) for name in self.names})
        noise = np.random.default_rng([self.seed, 9]).standard_normal(clean.shape, dtype=np.float32)
        return to_bytes(clean + self.noise * noise)

    def shown(self, frames_of: Mapping[str, Sequence[int]], views: Sequence[int] | None = None) -> np.ndarray:
        """The scene without noise, float32 NHWC: each actor that is named as it was in its own frames.

        Args:
            frames_of: name -> N frames of the video, one for each picture; who is not named is not there.
            views: from where the camera looks in each picture, frames of the video; None in turn.
        """
        views = range(self.num_frames) if views is None else views
        pictures = self.background(views)
        for actor in reversed(self.actors):
            if actor.name in frames_of:
                layer_N = [
                    self.layer(actor, frame, view) for frame, view in zip(frames_of[actor.name], views, strict=True)
                ]
                pictures = over(pictures, np.stack(layer_N))
        return pictures

    def background(self, views: Sequence[int] | None = None) -> np.ndarray:
        """What stands behind all actors, float32 NHWC."""
        views = range(self.num_frames) if views is None else views
        corners_N2 = self.camera_T2[list(views)]
        places_M2, which_N = np.unique(corners_N2, axis=0, return_inverse=True)
        pictures_MHWC = np.stack([self.ground(*self._places(corner)) for corner in places_M2])
        return pictures_MHWC[which_N.reshape(-1)]

    def layer(self, actor: Actor, frame: int, view: int) -> np.ndarray:
        """An actor with its effects as in ``frame``, seen from where the camera is in ``view``: RGBA float32, not multiplied."""
        x_HW, y_HW = self._places(self.camera_T2[view])
        clear_HW = np.ones_like(x_HW)
        for effect in actor.effects:
            clear_HW = clear_HW * (1 - _effect_alpha(effect, frame, x_HW, y_HW))
        body_HW = _body_alpha(actor, frame, x_HW, y_HW)
        alpha_HW = 1 - (1 - body_HW) * clear_HW
        x, y = actor.path_T2[frame]
        seen_HW = body_HW > 0
        colors_HWC = np.zeros((*body_HW.shape, 3))  # effects are black
        share_N1 = (body_HW / np.where(seen_HW, alpha_HW, 1))[seen_HW][:, None]
        colors_HWC[seen_HW] = share_N1 * actor.texture(x_HW[seen_HW] - x, y_HW[seen_HW] - y)
        return np.concatenate([colors_HWC, alpha_HW[..., None]], axis=2).astype(np.float32)

    def masks(self) -> np.ndarray:
        """What is seen of each actor without its effects: bool NTHW."""
        hidden = np.zeros((self.num_frames, self.height, self.width), dtype=bool)
        masks = []
        for actor in self.actors:
            bodies = np.stack(
                [_body_alpha(actor, t, *self._places(self.camera_T2[t])) > 0.5 for t in range(self.num_frames)]
            )
            masks.append(bodies & ~hidden)
            hidden |= bodies
        return np.stack(masks)

    def to_frame(self, layer: int, canonical_N2: np.ndarray, time: int) -> np.ndarray:
        """Where points of a layer are seen in a frame, (N, 2).

        Args:
            layer: number of an actor, or how many actors there are for the ground. canonical_N2: px from the middle of the actor, or places of
                the world.
        """
        return canonical_N2 + self._origin(layer, time)

    def to_canonical(self, layer: int, xy_N2: np.ndarray, time: int) -> np.ndarray:
        """Which points of a layer are at places of a frame, (N, 2): the way back."""
        return xy_N2 - self._origin(layer, time)

    def opacity(self, body: int, xy_N2: np.ndarray, time: int) -> np.ndarray:
        """Alpha of an actor without its effects at places of a frame, (N,)."""
        return _body_alpha(self.actors[body], time, *(xy_N2 + self.camera_T2[time]).T)

    def _origin(self, layer: int, time: int) -> np.ndarray:
        """Where a layer's (0, 0) is seen."""
        corner_2 = self.camera_T2[time]
        return -corner_2 if layer == len(self.actors) else self.actors[layer].path_T2[time] - corner_2

    def effect_mask(self, name: str, effect_name: str) -> np.ndarray:
        """Where an effect has at least half of its strength and no actor stands before it: bool THW."""
        actor = next(actor for actor in self.actors if actor.name == name)
        effect = next(effect for effect in actor.effects if effect.name == effect_name)
        alphas = np.stack([_effect_alpha(effect, t, *self._places(self.camera_T2[t])) for t in range(self.num_frames)])
        clear: np.ndarray = (alphas > effect.strength / 2) & ~self.masks().any(axis=0)
        return clear

    def _places(self, corner_2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = corner_2
        x_HW, y_HW = np.meshgrid(np.arange(self.width) + x, np.arange(self.height) + y)
        return x_HW, y_HW


def over(pictures_NHWC: np.ndarray, layers_NHW4: np.ndarray) -> np.ndarray:
    """A layer over pictures."""
    alpha = layers_NHW4[..., 3:]
    return alpha * layers_NHW4[..., :3] + (1 - alpha) * pictures_NHWC


def to_bytes(pictures: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return (pictures * 255).round().clip(0, 255).astype(np.uint8)


def _body_alpha(actor: Actor, frame: int, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    x, y = actor.path_T2[frame]
    alpha_HW: np.ndarray = ((actor.radius_px - np.hypot(x_HW - x, y_HW - y)) / _RIM_PX + 0.5).clip(0, 1)
    return alpha_HW


def _effect_alpha(effect: Effect, frame: int, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    (x, y), (wide, high) = effect.path_T2[frame], effect.radii_px
    far_HW = np.hypot((x_HW - x) / wide, (y_HW - y) / high)
    alpha_HW: np.ndarray = effect.strength * ((1 - far_HW) * min(wide, high) / _SOFT_PX + 0.5).clip(0, 1)
    return alpha_HW


def _texture(
    rng: np.random.Generator, longest_px: float, contrast: float, bright: tuple[float, float] = (0.45, 0.7)
) -> Texture:
    length_px = np.exp(rng.uniform(np.log(6.0), np.log(longest_px), _NUM_WAVES))
    angle = rng.uniform(0, 2 * np.pi, _NUM_WAVES)
    waves_K2 = (2 * np.pi / length_px)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    sizes_KC = contrast * np.sqrt(2 / _NUM_WAVES) * rng.uniform(0.5, 1.0, (_NUM_WAVES, 3))
    phases_KC = rng.uniform(0, 2 * np.pi, (_NUM_WAVES, 1)) + rng.uniform(-0.7, 0.7, (_NUM_WAVES, 3))
    return Texture(rng.uniform(*bright, 3), waves_K2, phases_KC, sizes_KC)


# ---- scenes


def walkers(
    seed: int,
    *,
    num_objects: int = 2,
    num_frames: int = 20,
    travel_px: float = 70.0,
    pan_px: float = 0.0,
    size: tuple[int, int] = (64, 96),
) -> EffectScene:
    """Objects that cross the picture in turn to the right and to the left, each with its shadow.

    Args:
        num_objects: 1 or 2. travel_px: how far each goes within the frame. pan_px: how far the camera goes. size: height and width; objects
            and shadows are as large as the height has them, what is seen on them stays as fine.
    """
    (height, width), times = size, size[0] / 64
    radius_px = 7.5 * times
    rng = np.random.default_rng([seed, 0])
    t = np.linspace(0, 1, num_frames)
    camera_T2 = np.stack([pan_px * t, np.zeros_like(t)], axis=1)
    actors = []
    for number, name in enumerate(("walker", "other")[:num_objects]):
        heading = 1 if number == 0 else -1
        middle_y = height * (0.25 + 0.42 * number) + rng.uniform(-1, 1)
        bob_T = times * rng.uniform(1.0, 2.5) * np.sin(2 * np.pi * (rng.uniform(1.0, 2.0) * t + rng.uniform()))
        seen_T2 = np.stack([(width - 1) / 2 + heading * travel_px * (t - 0.5), middle_y + bob_T], axis=1)
        path_T2 = seen_T2 + camera_T2
        shadow_T2 = path_T2 + times * np.array(_SHADOW_OFFSET_PX)
        shadow = Effect("shadow", shadow_T2, (radius_px + 1.5 * times, radius_px), _SHADOW_STRENGTH)
        actors.append(Actor(name, _texture(rng, 30.0, 0.25, (0.2, 0.9)), path_T2, radius_px, (shadow,)))
    return EffectScene(tuple(actors), _texture(rng, 60.0, 0.2), camera_T2, height, width, seed)


def followers(seed: int, *, num_frames: int = 20) -> EffectScene:
    """One object, and three dark ellipses of one size and strength: ``near`` and ``far`` move with it, ``own`` moves by itself."""
    height, width, radius_px = 64, 96, 6.5
    rng = np.random.default_rng([seed, 1])
    t = np.linspace(0, 1, num_frames)
    path_T2 = np.stack([12 + 72 * t, 12 + 2.5 * np.sin(2 * np.pi * (1.5 * t + rng.uniform()))], axis=1)
    size, strength = (7.0, 5.0), 0.5
    steps_T2 = _wander(rng, num_frames)
    own_T2 = np.stack([48 + 38 * steps_T2[:, 0], 55 + 3 * steps_T2[:, 1]], axis=1)
    effects = (
        Effect("near", path_T2 + np.array([0.0, 10.0]), size, strength),
        Effect("far", path_T2 + np.array([0.0, 28.0]), size, strength),
        Effect("own", own_T2, size, strength),
    )
    actor = Actor("walker", _texture(rng, 30.0, 0.25, (0.2, 0.9)), path_T2, radius_px, effects)
    return EffectScene((actor,), _texture(rng, 60.0, 0.2), np.zeros((num_frames, 2)), height, width, seed)


def _wander(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """A wander in [-1, 1] in both directions, (T, 2): to another place drawn at random in every second frame."""
    knots = rng.uniform(-1, 1, (num_frames // 2 + 1, 2))
    at_T = np.arange(num_frames) / 2
    return np.stack([np.interp(at_T, np.arange(len(knots)), knots[:, axis]) for axis in (0, 1)], axis=1)
