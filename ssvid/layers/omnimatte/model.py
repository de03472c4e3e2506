"""A fitted Omnimatte: its layers and its background, at any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvid.layers.background import at_size, grown, inpainted, masked_median, views
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import Layer, composite, dropped
from ssvid.layers.motion import Canvas
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.inputs import FitInputs
from ssvid.layers.omnimatte.network import LayerNet
from ssvid.layers.omnimatte.tightening import tightened
from ssvid.video.optical_flow import resized

SEEN_ALPHA, SEEN_CHANGE = (
    0.25,
    0.03,
)  # a layer is seen where it has more alpha and changes the picture by more, of the full range
_FOOTPRINT_PX = 2  # by which it is grown, for soft edges
_FRAMES_AT_ONCE = 8


class OmnimatteModel:
    """Layers of one video, each an object with its effects, and the canvas behind them. Made by ``fit_omnimatte``.

    names: of the objects, that in front first. step: of the fit so far. losses: of its last step. network, canvas_1CHW: what was fitted.
    """

    def __init__(
        self,
        clip: LayerClip,
        inputs: FitInputs,
        config: OmnimatteConfig,
        network: LayerNet,
        canvas_1CHW: Tensor,
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self.names, self.size = clip.names, clip.size
        self.network, self.canvas_1CHW = network, canvas_1CHW
        self.step, self.losses = 0, dict[str, float]()
        self.state = state
        self._raw: tuple[int, np.ndarray] | None = None
        self._clip, self._inputs, self._config = clip, inputs, config

    @property
    def canvas(self) -> np.ndarray:
        """The background as one picture, uint8 HWC, at the size of the fit."""
        return _bytes(self.canvas_1CHW.detach().cpu()[0].permute(1, 2, 0).numpy())

    @property
    def seen(self) -> np.ndarray:
        """Where something of the canvas was seen in some frame, bool HW; the rest was filled from around it."""
        return self._inputs.seen_HW

    @property
    def inliers(self) -> np.ndarray:
        """Share of the flow outside all masks that the camera explains, of the step of each frame towards the middle one: (T,)."""
        return self._inputs.inliers_T

    def camera(self, height: int, width: int) -> Canvas:
        """Where frames of a size lie on the canvas of that size."""
        return at_size(self._inputs.canvas, self.size, (height, width))

    def raw_layers(self) -> np.ndarray:
        """As the network gives them: RGBA in [0, 1], float32 (N, T, H, W, 4) at the size of the fit, that in front first."""
        if self._raw is None or self._raw[0] != self.step:
            self._raw = (self.step, self._asked())
        return self._raw[1]

    def _asked(self) -> np.ndarray:
        self.network.eval()
        device = self.canvas_1CHW.device
        with torch.inference_mode():
            layers = [
                torch.cat([self.network(part.to(device)).cpu() for part in own_TCHW.split(_FRAMES_AT_ONCE)])
                for own_TCHW in self._inputs.inputs_NTCHW
            ]
        return torch.stack(layers).permute(0, 1, 3, 4, 2).numpy()

    def layers(self, height: int, width: int) -> list[Layer]:
        """An object with its effects each, that in the back first, as ``composite`` takes them; shadows as thin as they can be.

        Away from the masks an alpha is the smallest that gives the same picture over the background, see ``tightened``.
        """
        raw_NTHW4 = self.raw_layers()
        behind_THWC = self.background_frames(*self.size).astype(np.float32) / 255
        sure_NTHW = grown(self._clip.masks_NTHW, self._config.grown_px)
        found = []
        for name, raw_THW4, sure_THW in zip(self.names, raw_NTHW4, sure_NTHW, strict=True):
            rgba_THW4 = tightened(raw_THW4, behind_THWC, sure_THW)
            found.append(Layer(name, np.stack([_bytes(_rgba_at(one, height, width)) for one in rgba_THW4])))
        return found[::-1]

    def detailed_layers(self, frames_THWC: np.ndarray, behind_THWC: np.ndarray | None = None) -> list[Layer]:
        """The layers at the size of the original frames, with all that the fit left out of them: details, sharp edges.

        Lu et al. (CVPR 2021), section 3.4: what the reconstruction lacks is added to each layer by as much as is seen of it.

        Args:
            frames_THWC: uint8, those that were fitted, at any size. behind_THWC: ``full_background`` of them, where it is there already.
        """
        height, width = frames_THWC.shape[1:3]
        layers = self.layers(height, width)
        behind_THWC = self.full_background(frames_THWC) if behind_THWC is None else behind_THWC
        lacking_THWC = frames_THWC.astype(np.float32) - composite(behind_THWC, layers)
        clear_THW1 = np.ones((*frames_THWC.shape[:3], 1), np.float32)
        detailed = []
        for layer in reversed(layers):
            colors = (layer.rgba_THW4[..., :3] + clear_THW1 * lacking_THWC).round().clip(0, 255).astype(np.uint8)
            detailed.append(Layer(layer.name, np.concatenate([colors, layer.rgba_THW4[..., 3:]], axis=3)))
            clear_THW1 = clear_THW1 * (1 - layer.rgba_THW4[..., 3:] / np.float32(255))
        return detailed[::-1]

    def footprints(self) -> np.ndarray:
        """Where each object is seen with its effects: bool NTHW at the size of the fit, that in front first.

        On its mask, where its layer has some alpha and changes the background, and a little around. Thin alpha is everywhere in a real video,
        in the place of what a canvas cannot show; it is no trace of an object.
        """
        raw_NTHW4 = self.raw_layers()
        behind_THWC = self.background_frames(*self.size).astype(np.float32) / 255
        change_NTHW = (raw_NTHW4[..., 3:] * np.abs(raw_NTHW4[..., :3] - behind_THWC)).max(axis=-1)
        seen_NTHW = (raw_NTHW4[..., 3] > SEEN_ALPHA) & (change_NTHW > SEEN_CHANGE)
        return grown(seen_NTHW | self._clip.masks_NTHW, _FOOTPRINT_PX)

    def background_frames(self, height: int, width: int) -> np.ndarray:
        """What lies behind all layers in each frame, uint8 (T, H, W, 3); blurred where the size is above that of the fit."""
        camera = self.camera(height, width)
        return views(resized(self.canvas, camera.height, camera.width), camera, height, width)

    def full_canvas(self, frames_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The background as one picture at the size of the original frames, as sharp as they are.

        The median of what the footprints of all layers leave free.

        Args:
            frames_THWC: uint8, those that were fitted, at any size.

        Returns:
            picture_HWC: uint8, filled from around where nothing was ever seen. seen_HW: bool, where something was.
        """
        height, width = frames_THWC.shape[1:3]
        small_THW: np.ndarray = np.any(self.footprints(), axis=0).astype(np.float32)
        hidden_THW = np.stack([resized(one_HW, height, width) > 0 for one_HW in small_THW])
        median_HWC, seen_HW = masked_median(frames_THWC, hidden_THW, self.camera(height, width))
        return inpainted(median_HWC, seen_HW), seen_HW

    def full_background(self, frames_THWC: np.ndarray) -> np.ndarray:
        """What lies behind all layers in each original frame, uint8 THWC."""
        height, width = frames_THWC.shape[1:3]
        return views(self.full_canvas(frames_THWC)[0], self.camera(height, width), height, width)

    def without(self, name: str, frames_THWC: np.ndarray) -> np.ndarray:
        """The original frames without an object and its effects, uint8 THWC: where it was, the others over the background.

        Args:
            frames_THWC: uint8, those that were fitted, at any size.

        Raises:
            DataError: there is no such object.
        """
        height, width = frames_THWC.shape[1:3]
        behind_THWC = self.full_background(frames_THWC)
        clean_THWC = composite(behind_THWC, dropped(self.detailed_layers(frames_THWC, behind_THWC), name))
        share_THW = self.footprints()[self.names.index(name)].astype(np.float32)
        pictures = []
        for frame_HWC, clean_HWC, share_HW in zip(frames_THWC, clean_THWC, share_THW, strict=True):
            share_HW1 = resized(share_HW, height, width)[..., None]
            pictures.append((share_HW1 * clean_HWC + (1 - share_HW1) * frame_HWC).round().astype(np.uint8))
        return np.stack(pictures)


def _rgba_at(rgba_HW4: np.ndarray, height: int, width: int) -> np.ndarray:
    """A layer at another size; colors are weighed by their alpha, so that what lies beside an object does not leak in."""
    if rgba_HW4.shape[:2] == (height, width):
        return rgba_HW4
    weighed = np.concatenate([rgba_HW4[..., :3] * rgba_HW4[..., 3:], rgba_HW4[..., 3:]], axis=2)
    large = resized(weighed, height, width)
    return np.concatenate([large[..., :3] / large[..., 3:].clip(min=1e-4), large[..., 3:]], axis=2)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().clip(0, 255).astype(np.uint8)
