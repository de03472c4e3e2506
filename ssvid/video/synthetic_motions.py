"""The laws of the motions of synthetic scenes: where the actor is at each time, class by class.

Each law takes times (T,) in seconds of scene time and the natural constants of a scene, and gives dx, dy in frame heights (x to the
right, y down), the angle in radians and the scale, (T,) each. ``ssvid.video.synthetic`` tells what the sets of classes are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from ssvid.video.synthetic_actions import ACTIONS, PART_RANGE, PARTS, act

GRAVITY = 4.0  # frame heights per second squared, at speed 1
Path = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # dx, dy (frame heights), angle, scale; each (T,)
Law = Callable[[np.ndarray, Mapping[str, float]], Path]


def slide(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Pushed, brought to rest by friction, pushed back: s = v0 t - a t^2 / 2 with v0 = 2 D / T, a = v0 / T."""
    push, tau = periods(t, n["period"])
    travelled = n["reach"] * _braked(tau / n["period"], 1.0) - n["reach"] / 2
    return _path(t, dx=np.where(push % 2 == 0, travelled, -travelled))


def spin(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Whirled round in place; friction takes 85 % of the angular speed before the next push."""
    push, tau = periods(t, n["period"])
    return _path(t, angle=n["reach"] * (push + _braked(tau / n["period"], 0.85)))


def pulse(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Swells fast and shrinks slowly, as a heart: scale = 1 + A (u/r) exp(1 - u/r) with u the phase, r = 0.15."""
    _, tau = periods(t, n["period"])
    u = tau / n["period"] / 0.15
    return _path(t, scale=0.85 + n["reach"] * u * np.exp(1 - u))


def bounce(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Falls under gravity, keeps the share e of its speed at each of three bounces, and is thrown up again."""
    speeds = math.sqrt(2 * GRAVITY * n["reach"]) * n["restitution"] ** np.arange(3)
    arc, since = _arcs(t, speeds)
    return _path(t, dy=n["reach"] / 2 - speeds[arc] * since + GRAVITY * since**2 / 2)


def pendulum(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Swings on a string of length L: angle = A exp(-c t) cos(w t), w = sqrt(g / L)."""
    length = n["length"]
    swing = n["reach"] * np.exp(-0.2 * t) * np.cos(math.sqrt(GRAVITY / length) * t)
    return _path(t, dx=length * np.sin(swing), dy=length * (np.cos(swing) - 0.85), angle=-swing)


def orbit(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Circles an unseen center on Kepler's ellipse: equal areas in equal times."""
    mean = 2 * math.pi * t / n["period"]
    e = n["eccentricity"]
    anomaly = mean + e * np.sin(mean)
    for _ in range(8):  # Newton on Kepler's equation; exact to 1e-12 for e <= 0.4
        anomaly = anomaly - (anomaly - e * np.sin(anomaly) - mean) / (1 - e * np.cos(anomaly))
    return _path(t, dx=n["reach"] * (np.cos(anomaly) - e), dy=n["reach"] * math.sqrt(1 - e * e) * np.sin(anomaly))


def shake(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Struck again and again, rings down along one axis: A exp(-3 u) sin(2 pi k u), k whole oscillations a stroke."""
    _, tau = periods(t, n["period"])
    u = tau / n["period"]
    return _path(t, dx=n["reach"] * np.exp(-3 * u) * np.sin(2 * math.pi * n["oscillations"] * u))


def roll(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Rolls up a slope and back without slipping: s = v0 t - a t^2 / 2, angle = s / radius."""
    _, tau = periods(t, n["period"])
    u = tau / n["period"]
    way = 4 * n["reach"] * u * (1 - u)
    return _path(t, dx=way - n["reach"] / 2, angle=way / n["radius"])


def wag(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Turns to and fro about a point at its rim, as a tail: angle = A sin(w t)."""
    angle = n["reach"] * np.sin(2 * math.pi * t / n["period"])
    arm = 1.3 * n["radius"]
    return _path(t, dx=arm * (np.cos(angle) - 1), dy=arm * np.sin(angle), angle=angle)


def approach(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Thrown at the camera and drawn back along the line of sight: depth z is a parabola in time, scale = 1 / z."""
    _, tau = periods(t, n["period"])
    u = tau / n["period"]
    scale = 1 / (1 / 0.55 - (1 / 0.55 - 1 / n["reach"]) * 4 * u * (1 - u))
    return _path(t, dx=0.1 * scale, scale=scale)


def coast(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Pushed, slowed by drag, pushed back: v = v0 exp(-c u), u the time since the push."""
    push, u = periods(t, n["period"])
    travelled = n["reach"] * (_spent(u, n) - 0.5)
    return _path(t, dx=np.where(push % 2 == 0, travelled, -travelled))


def drop(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Thrown up from the ground, falls under gravity, keeps the share e of its speed at each of four bounces."""
    speeds = math.sqrt(2 * GRAVITY * n["reach"]) * n["restitution"] ** np.arange(4)
    arc, since = _arcs(t, speeds)
    return _path(t, dy=n["reach"] / 2 - speeds[arc] * since + GRAVITY * since**2 / 2)


def fall(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Let go at a height, falls under gravity to the ground, and the next one is let go: g u^2 / 2."""
    _, u = periods(t, math.sqrt(2 * n["reach"] / GRAVITY))
    return _path(t, dy=GRAVITY * u**2 / 2 - n["reach"] / 2)


def settle(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """A leaf that sinks at an even pace, swaying, until the next one comes."""
    _, u = periods(t, n["period"])
    sway = np.sin(2 * math.pi * u / n["sway"])
    return _path(t, dx=0.08 * sway, dy=n["reach"] * (u / n["period"] - 0.5), angle=0.4 * sway)


def spread(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """A drop that spreads by diffusion, its area growing evenly, until the next one falls: scale = a sqrt(1 + k u)."""
    _, u = periods(t, n["period"])
    return _path(t, scale=n["reach"] * np.sqrt(1 + n["growth"] * u))


def cool(t: np.ndarray, n: Mapping[str, float]) -> Path:
    """Heated at once, again and again, and stands still while it cools: see ``_heat``."""
    return _path(t)


def steady(
    t: np.ndarray, n: Mapping[str, float], *, across: int = 0, down: int = 0, turn: int = 0, grow: int = 0
) -> Path:
    """One of place, angle and size moves at a steady pace and comes round, half of its range in a second; the others stand.

    A range that is left at its end is entered at its beginning. Where all four start is drawn evenly from their ranges, so
    that at every instant all four are spread evenly, whichever moves, and whichever way.
    """
    x, y, angle, size = (
        (n[name] + 0.5 * pace * t) % 1 for name, pace in (("x", across), ("y", down), ("angle", turn), ("size", grow))
    )
    low, high = np.log(STEADY_SCALE)
    return _path(t, dx=x - 0.5, dy=y - 0.5, angle=2 * math.pi * angle, scale=np.exp(low + (high - low) * size))


_MOTIONS: dict[str, Law] = {
    f.__name__: f for f in (slide, spin, pulse, bounce, pendulum, orbit, shake, roll, wag, approach)
}
MOTIONS = tuple(_MOTIONS)
STEADY_SCALE = (0.7, 1.6)  # of the actor in ``DIRECTIONS``, spread evenly in its logarithm
_DIRECTIONS: dict[str, Law] = {
    "right": partial(steady, across=1),
    "left": partial(steady, across=-1),
    "down": partial(steady, down=1),
    "up": partial(steady, down=-1),
    "clockwise": partial(steady, turn=1),
    "counterclockwise": partial(steady, turn=-1),
    "growing": partial(steady, grow=1),
    "shrinking": partial(steady, grow=-1),
}
DIRECTIONS = tuple(_DIRECTIONS)
_LOSING = {f.__name__: f for f in (coast, drop, fall, settle, spread, cool)}
IRREVERSIBLE = tuple(_LOSING)
_ACTIONS: dict[str, Law] = {name: partial(act, name) for name in ACTIONS}
LAWS = _MOTIONS | _DIRECTIONS | _LOSING | _ACTIONS
CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"everyday": MOTIONS, "directions": DIRECTIONS, "irreversible": IRREVERSIBLE, "actions": ACTIONS}
)

# natural constants: name -> (low, high), drawn uniformly.
NATURAL: dict[str, dict[str, tuple[float, float]]] = {
    "slide": {"period": (1.0, 1.0), "reach": (0.3, 0.42)},
    "spin": {"period": (1.1, 1.1), "reach": (4.0, 6.0)},
    "pulse": {"period": (0.8, 0.8), "reach": (0.45, 0.7)},
    "bounce": {"reach": (0.3, 0.42), "restitution": (0.75, 0.85)},
    "pendulum": {"length": (0.28, 0.36), "reach": (0.6, 0.9)},
    "orbit": {"period": (1.2, 1.2), "reach": (0.16, 0.22), "eccentricity": (0.1, 0.4)},
    "shake": {"period": (0.9, 0.9), "reach": (0.06, 0.1), "oscillations": (4.0, 4.0)},
    "roll": {"period": (1.2, 1.2), "reach": (0.32, 0.42)},
    "wag": {"period": (0.65, 0.65), "reach": (0.4, 0.7)},
    "approach": {"period": (1.3, 1.3), "reach": (1.5, 1.9)},
    "coast": {"period": (2.2, 2.2), "reach": (0.5, 0.6), "drag": (1.5, 1.5)},
    "drop": {"reach": (0.36, 0.44), "restitution": (0.5, 0.6)},
    "fall": {"reach": (0.6, 0.8)},
    "settle": {"period": (1.6, 1.6), "reach": (0.6, 0.8), "sway": (0.7, 0.9)},
    "spread": {"period": (1.7, 1.7), "reach": (0.4, 0.5), "growth": (9.0, 14.0)},
    "cool": {"period": (1.7, 1.7), "drag": (1.5, 1.5)},
    **{name: dict.fromkeys(("x", "y", "angle", "size"), (0.0, 1.0)) for name in DIRECTIONS},
    **{name: dict.fromkeys(PARTS, PART_RANGE) for name in ACTIONS},
}
UPRIGHT = (
    "bounce",
    "pendulum",
    "drop",
    "fall",
    "settle",
    *DIRECTIONS,
    *ACTIONS,
)  # gravity has a direction; the other motions' axes are turned by ``direction``


def periods(t: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """How many whole periods have passed, and the time since the last one, (T,) each."""
    count = np.floor(t / period)
    return count, t - count * period


def _arcs(t: np.ndarray, speeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of flights that begin one after the other with these speeds, over and over: which one it is, and the time since."""
    ends = np.cumsum(2 * speeds / GRAVITY)
    _, tau = periods(t, ends[-1])
    arc = np.minimum(np.searchsorted(ends, tau, side="right"), len(speeds) - 1)
    return arc, tau - np.concatenate([[0.0], ends[:-1]])[arc]


def _braked(u: np.ndarray, share: float) -> np.ndarray:
    """Way of a body whose speed falls linearly by ``share`` while u goes from 0 to 1; 0 at 0, 1 at 1."""
    return (u - share * u**2 / 2) / (1 - share / 2)


def _spent(u: np.ndarray, n: Mapping[str, float]) -> np.ndarray:
    """The share of its way that a body under drag has made by u, of what it makes in a period; 0 at 0."""
    return np.expm1(-n["drag"] * u) / math.expm1(-n["drag"] * n["period"])


def _path(
    t: np.ndarray,
    dx: np.ndarray | float = 0.0,
    dy: np.ndarray | float = 0.0,
    angle: np.ndarray | float = 0.0,
    scale: np.ndarray | float = 1.0,
) -> Path:
    zero = np.zeros_like(t)
    return zero + dx, zero + dy, zero + angle, zero + scale
