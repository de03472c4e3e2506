"""Omnimattes of scenes whose layers are known: which effect is learned first, whose shadow goes where, and what each part of the model is for.

Figures are of the size of the fit. Of several objects a figure is that of the worse one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import Layer, composite, dropped
from ssvid.layers.motion import measure_motion
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.measures import explained, half_step, iou, mean_alpha, psnr, removal_psnr
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.video.synthetic_effects import EffectScene, followers, to_bytes, walkers

EFFECTS: Final = ("near", "far", "own")  # of ``followers``, in the order in which they are to be learned
_FPS = 10.0
_BLIND: Final = OmnimatteConfig(flow=False, noise_channels=0)
LEARNING: Final[Mapping[str, OmnimatteConfig]] = MappingProxyType(
    {"complete": OmnimatteConfig(), "no flow in the input": OmnimatteConfig(flow=False), "mask alone as input": _BLIND}
)
ABLATION: Final[Mapping[str, OmnimatteConfig]] = MappingProxyType(
    {
        "complete": OmnimatteConfig(),
        "no flow in the input": OmnimatteConfig(flow=False),
        "mask alone as input": _BLIND,
        "no sparsity": OmnimatteConfig(alpha_l1_weight=0, alpha_l0_weight=0),
        "sparsity ten times as strong": OmnimatteConfig(alpha_l1_weight=0.1, alpha_l0_weight=0.05),
        "no mask loss": OmnimatteConfig(mask_weight=0),
        "mask loss to the end": OmnimatteConfig(mask_target=1e-9),
    }
)
# Of each ablation: the figure that it is seen in, by how much that is worse than of the complete model, and what the part is for.
SHOWS: Final[Mapping[str, tuple[str, float, str]]] = MappingProxyType(
    {
        "no flow in the input": ("alpha in the other's shadow", 0.1, "flow tells which motion an effect follows"),
        "mask alone as input": (
            "removal within the region, dB",
            3.0,
            "flow and noise tell the network places and motions",
        ),
        "no sparsity": ("alpha where nothing of it is", 0.1, "it keeps layers empty where they have nothing to show"),
        "sparsity ten times as strong": ("IoU with object and shadow", 0.1, "it is weak, so that shadows stay"),
        "no mask loss": ("IoU with object and shadow", 0.1, "it says in the beginning whose object is whose"),
        "mask loss to the end": ("IoU with object and shadow", 0.1, "letting go of the masks lets shadows in"),
    }
)
ABLATION_STEPS: Final = 300  # by then whose shadow is whose has been decided
LESS_IS_BETTER: Final = ("alpha in the other's shadow", "alpha where nothing of it is")
Figures = dict[str, float]


@dataclass(frozen=True)
class Learned:
    """When the effects of ``followers`` come into the layer.

    steps: after how many steps it is known. shares: effect -> how much of it is reconstructed then, see ``explained``. pictures_NHWC: the
    frame in the middle, put together, uint8. frame_HWC: as it was filmed.
    """

    name: str
    steps: tuple[int, ...]
    shares: Mapping[str, tuple[float, ...]]
    pictures_NHWC: np.ndarray = field(repr=False, compare=False)
    frame_HWC: np.ndarray = field(repr=False, compare=False)

    @property
    def halves(self) -> dict[str, float | None]:
        """Effect -> the step at which half of it is reconstructed for the first time; None if never."""
        return {name: half_step(self.steps, shares) for name, shares in self.shares.items()}


@dataclass(frozen=True)
class Ablated:
    """One line of the ablation, on ``walkers``. figures: as ``known_figures``. steps: after how many steps the curves are known.

    own, other: object -> mean alpha of its layer in its own shadow, and in that of the other. model: at the end.
    """

    name: str
    figures: Figures
    steps: tuple[int, ...]
    own: Mapping[str, tuple[float, ...]]
    other: Mapping[str, tuple[float, ...]]
    model: OmnimatteModel = field(repr=False, compare=False)


def filmed(scene: EffectScene) -> LayerClip:
    """The clip of a scene, with its true masks."""
    return LayerClip(scene.frames(), scene.masks(), scene.names, _FPS)


def learned(
    name: str,
    seed: int,
    iterations: int = OmnimatteConfig.iterations,
    every: int = 10,
    on_step: Callable[[int], None] | None = None,
) -> Learned:
    """Fit one line of ``LEARNING`` to ``followers``, and watch what is learned when.

    Three dark ellipses of one size and strength: ``near`` and ``far`` move as the object does, ``own`` by itself.

    Args:
        name: of ``LEARNING``. seed: of scene and fit. every: after how many steps the curves have a point. on_step: told the number of
            the step.
    """
    scene = followers(seed)
    clip, clean = filmed(scene), to_bytes(scene.background())
    regions = {effect: scene.effect_mask("walker", effect) for effect in EFFECTS}
    points: list[tuple[int, dict[str, float], np.ndarray]] = []

    def watch(model: OmnimatteModel, losses: Mapping[str, float]) -> None:
        if model.step % every == 0 or model.step == iterations:
            layer = Layer("walker", to_bytes(model.raw_layers()[0]))
            found = composite(model.background_frames(*clip.size), [layer])
            shares = {effect: explained(found, clip.frames_THWC, clean, region) for effect, region in regions.items()}
            points.append((model.step, shares, found[clip.num_frames // 2]))
        if on_step is not None:
            on_step(model.step)

    config = replace(LEARNING[name], iterations=iterations)
    fit_omnimatte(clip, measure_motion(clip.frames_THWC), config, seed=seed, on_step=watch)
    steps, shares, pictures = zip(*points, strict=True)
    curves = {effect: tuple(one[effect] for one in shares) for effect in EFFECTS}
    return Learned(name, steps, curves, np.stack(pictures), clip.frames_THWC[clip.num_frames // 2])


def ablated(
    name: str,
    seed: int,
    iterations: int = ABLATION_STEPS,
    every: int = 25,
    on_step: Callable[[int], None] | None = None,
) -> Ablated:
    """Fit one line of ``ABLATION`` to ``walkers``, two objects with a shadow each, and watch whose shadow goes where.

    Args:
        As ``learned``.
    """
    scene = walkers(seed)
    clip = filmed(scene)
    shadows = [scene.effect_mask(own, "shadow") for own in scene.names]
    points: list[tuple[int, np.ndarray]] = []

    def watch(model: OmnimatteModel, losses: Mapping[str, float]) -> None:
        if model.step % every == 0 or model.step == iterations:
            alphas_NTHW = model.raw_layers()[..., 3]
            found = [[mean_alpha(own_THW, shadow) for shadow in shadows] for own_THW in alphas_NTHW]
            points.append((model.step, np.array(found)))
        if on_step is not None:
            on_step(model.step)

    config = replace(ABLATION[name], iterations=iterations)
    model = fit_omnimatte(clip, measure_motion(clip.frames_THWC), config, seed=seed, on_step=watch)
    steps, found = zip(*points, strict=True)
    own, other = (
        {one: tuple(float(alphas[n, n if mine else 1 - n]) for alphas in found) for n, one in enumerate(scene.names)}
        for mine in (True, False)
    )
    return Ablated(name, known_figures(model, scene, clip), steps, own, other, model)


def known_figures(model: OmnimatteModel, scene: EffectScene, clip: LayerClip) -> Figures:
    """All that can be said of a model of ``filmed``, a scene of ``walkers``; each beside the same of what takes no model.

    Alphas are means over a region; dB are PSNR. Within the region: where the object and its shadow are.
    """
    layers, behind = model.layers(*clip.size), model.background_frames(*clip.size)
    clean = to_bytes(scene.background())
    figures = {
        "clean background, dB": psnr(behind, clean),
        "full background, dB": psnr(model.full_background(clip.frames_THWC), clean),
        "reconstruction, dB": psnr(composite(behind, layers), clip.frames_THWC),
    }
    per_object = [_of_object(scene, clip, model, number, layers, behind) for number in range(len(scene.names))]
    for name in per_object[0]:
        worst = max if name in LESS_IS_BETTER else min
        figures[name] = worst(own[name] for own in per_object)
    return figures


def _of_object(
    scene: EffectScene, clip: LayerClip, model: OmnimatteModel, number: int, layers: Sequence[Layer], behind: np.ndarray
) -> Figures:
    name, alphas_NTHW = scene.names[number], model.raw_layers()[..., 3]
    own_THW, mask_THW = alphas_NTHW[number], clip.masks_NTHW[number]
    shadow = scene.effect_mask(name, "shadow")
    region = mask_THW | shadow
    everyone = range(scene.num_frames)
    truth = to_bytes(scene.shown({other: everyone for other in scene.names if other != name}))
    removal = removal_psnr(composite(behind, dropped(layers, name)), truth, clip.frames_THWC, mask_THW, region)
    tight = next(layer for layer in layers if layer.name == name).rgba_THW4[..., 3] / 255
    true_alpha = np.stack([scene.layer(scene.actors[number], t, t)[..., 3] for t in everyone])
    others = [alphas_NTHW[k] for k in range(len(scene.names)) if k != number]
    return {
        "alpha in its own shadow": mean_alpha(own_THW, shadow),
        "alpha in its own shadow, tightened": mean_alpha(tight, shadow),
        "alpha in its own shadow, truth": mean_alpha(true_alpha, shadow),
        **({"alpha in the other's shadow": max(mean_alpha(other, shadow) for other in others)} if others else {}),
        "alpha where nothing of it is": mean_alpha(own_THW, true_alpha == 0),
        "IoU with object and shadow": iou(own_THW, region),
        "IoU of the mask alone": iou(mask_THW.astype(float), region),
        "removal within the region, dB": removal["removal"],
        "the same over the original frames, dB": psnr(model.without(name, clip.frames_THWC), truth, region),
        "video untouched, dB": removal["untouched"],
        "mask alone replaced by the truth, dB": removal["mask_only"],
    }
