"""A clip as atlases: what is where in them, at any size and between frames; atlases as pictures; a painted frame brought into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import DataError
from ssvid.layers.atlas.config import AtlasConfig, LossWeights
from ssvid.layers.atlas.layout import Layout
from ssvid.layers.atlas.networks import LayeredAtlases
from ssvid.layers.atlas.pictures import covered, inverted, sampled, to_bytes
from ssvid.layers.motion import grid_px

_FORMAT = 2
_POINTS_AT_ONCE = 1 << 16
_BETAS = (0.9, 0.99)


class AtlasModel:
    """The networks of one clip, and how far their fit is; ``fit_atlas`` makes it.

    layout: sizes and names. config: what it is fitted with. step: how many steps were taken. Heights and widths below are those that are asked
    for, in px; times_T: numbers of frames of the clip, 0 to its last, with fractions between frames.
    """

    def __init__(self, layout: Layout, config: AtlasConfig, device: str = "cpu") -> None:
        self.layout, self.config, self.step = layout, config, 0
        self.device = torch.device(device)
        self.network = LayeredAtlases(layout, config).to(self.device)
        rates = {"network": config.network_lr, "grid": config.grid_lr}
        groups = [
            {"params": parameters, "highest_lr": rate}
            for kind, rate in rates.items()
            if (parameters := self.network.parameters_of(kind))
        ]
        self.optimizer = torch.optim.Adam(groups, betas=_BETAS, fused=True)
        self.generator = torch.Generator()

    @classmethod
    def begin(
        cls, layout: Layout, config: AtlasConfig, seed: int, masks_NTHW: np.ndarray, device: str = "cpu"
    ) -> AtlasModel:
        """Before the first step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(layout, config, device)
        model.generator.manual_seed(seed)
        model.network.start_from(torch.from_numpy(masks_NTHW).to(model.device))
        return model

    # ---- to and from files

    def state(self) -> dict[str, Any]:
        """All of it as plain types and tensors, which ``torch.load(weights_only=True)`` reads; a fit can go on from it."""
        return {
            "format": _FORMAT,
            "config": dataclasses.asdict(self.config),
            "layout": {field.name: getattr(self.layout, field.name) for field in dataclasses.fields(Layout)},
            "network": {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: str = "cpu") -> AtlasModel:
        """What ``state`` gave.

        Raises:
            DataError: it is of another version.
        """
        if state.get("format") != _FORMAT:
            raise DataError(
                f"atlases of format {state.get('format')!r} cannot be read; this version reads format {_FORMAT}. Fit them anew."
            )
        config = dict(state["config"])
        weights = LossWeights(**config.pop("weights"))
        model = cls(
            Layout(**{**state["layout"], "names": tuple(state["layout"]["names"])}),
            AtlasConfig(weights=weights, **config),
            device,
        )
        model.network.load_state_dict(state["network"])
        model.optimizer.load_state_dict(_copied(state["optimizer"]))
        model.generator.set_state(state["generator"])
        model.step = state["step"]
        return model

    def require(self, layout: Layout, config: AtlasConfig) -> AtlasModel:
        """Itself, where it is of such a clip and has such settings.

        Raises:
            DataError: it is not.
        """
        changed = [
            field.name
            for field in dataclasses.fields(AtlasConfig)
            if getattr(self.config, field.name) != getattr(config, field.name)
        ]
        if changed:
            raise DataError(
                f"the fit was begun with other settings ({', '.join(changed)}), and cannot go on with these. Give the same again, or begin anew."
            )
        own, other = self.layout, layout
        same_sizes = (own.names, own.num_frames, own.height, own.width) == (
            other.names,
            other.num_frames,
            other.height,
            other.width,
        )
        if not same_sizes or not torch.allclose(own.boxes_L22.cpu(), other.boxes_L22, atol=1e-3):
            raise DataError(
                "the fit was begun on another clip, other masks or another motion, and cannot go on. Begin anew."
            )
        return self

    # ---- what is where

    @property
    def names(self) -> tuple[str, ...]:
        """Of the layers: objects, that in front first, then ``background``."""
        return self.layout.names

    def number(self, name: str) -> int:
        """Which layer is called so.

        Raises:
            DataError: none is.
        """
        if name not in self.names:
            raise DataError(f"there is no layer {name!r}. Take one of: {', '.join(self.names)}.")
        return self.names.index(name)

    def uv_px(self, name: str, height: int, width: int, times_T: Sequence[float]) -> np.ndarray:
        """Where in its exported atlas every pixel lies, x and y: float32 (T, H, W, 2). The center of the first px is (0, 0).

        A mapping is smooth: in frames that are larger than those fitted, pixels lie linearly between the pixels of those.
        """
        number, layout = self.number(name), self.layout
        mapping, low = self.network.mappings[number], layout.boxes_L22[number, 0].to(self.device)

        def of_points(points_P3: Tensor) -> Tensor:
            places_P2: Tensor = (mapping(points_P3) - low) * self._atlas_px_per_unit
            return places_P2

        if height * width <= layout.height * layout.width:
            return self._frames(of_points, height, width, times_T)
        grid_1HW2 = layout.within_bordered(height, width)[None]
        frames = []
        for time in times_T:
            points_P3 = layout.bordered_points(float(time))
            coarse = self._at_points(of_points, points_P3).unflatten(0, (layout.height + 2, layout.width + 2))
            fine_2HW = F.grid_sample(coarse.permute(2, 0, 1)[None], grid_1HW2, align_corners=True)[0]
            frames.append(fine_2HW.permute(1, 2, 0).numpy())
        return np.stack(frames)

    def alphas(self, height: int, width: int, times_T: Sequence[float]) -> np.ndarray:
        """How opaque each object is by itself: float32 (N, T, H, W)."""
        found = self._frames(lambda points_P3: self.network.opacities(points_P3).T, height, width, times_T)
        return np.ascontiguousarray(np.moveaxis(found, -1, 0))

    def weights(self, height: int, width: int, times_T: Sequence[float]) -> np.ndarray:
        """How much is seen of each layer, 1 in all: float32 (L, T, H, W)."""
        alphas_NTHW = self.alphas(height, width, times_T)
        ones = np.ones_like(alphas_NTHW[:1])
        passed_LTHW = np.concatenate([ones, np.cumprod(1 - alphas_NTHW, axis=0)])
        weights: np.ndarray = passed_LTHW * np.concatenate([alphas_NTHW, ones])
        return weights

    def colors(self, name: str, height: int, width: int, times_T: Sequence[float]) -> np.ndarray:
        """What the atlas of a layer shows at every pixel, whoever is in front: float32 (T, H, W, 3) in [0, 1]."""
        return self._colors_at(self.number(name), self.uv_px(name, height, width, times_T))

    def recompose(self, height: int, width: int, times_T: Sequence[float]) -> np.ndarray:
        """All layers put together: uint8 (T, H, W, 3). Between two frames this is motion that no camera saw."""
        frames = []
        for time in times_T:
            weights_LHW1 = self.weights(height, width, [time])[:, 0, ..., None]
            colors_LHW3 = np.stack([self.colors(name, height, width, [time])[0] for name in self.names])
            frames.append(to_bytes((weights_LHW1 * colors_LHW3).sum(axis=0)))
        return np.stack(frames)

    def _frames(
        self, of_points: Callable[[Tensor], Tensor], height: int, width: int, times_T: Sequence[float]
    ) -> np.ndarray:
        """A function of points (P, 3) -> (P, C) at all pixels of frames: (T, H, W, C)."""
        points = (self.layout.frame_points(height, width, float(time)) for time in times_T)
        return np.stack([self._at_points(of_points, own).unflatten(0, (height, width)).numpy() for own in points])

    def _at_points(self, of_points: Callable[[Tensor], Tensor], points_PD: Tensor) -> Tensor:
        """A function of points at many of them, in parts, without gradient, on the processor."""
        with torch.no_grad():
            return torch.cat([of_points(part.to(self.device)).cpu() for part in points_PD.split(_POINTS_AT_ONCE)])

    def _colors_at(self, number: int, uv_px: np.ndarray) -> np.ndarray:
        """Of the atlas of a layer at places in px of it, float32 (..., 3)."""
        low = self.layout.boxes_L22[number, 0]
        uv_P2 = torch.from_numpy(uv_px).reshape(-1, 2) / self._atlas_px_per_unit + low
        colors: np.ndarray = self._at_points(self.network.atlases[number], uv_P2).numpy().reshape(*uv_px.shape[:-1], 3)
        return colors

    # ---- atlases as pictures

    @property
    def _atlas_px_per_unit(self) -> float:
        return self.layout.half_px * self.config.export_scale

    def atlas_size(self, name: str) -> tuple[int, int]:
        """Height and width of the exported atlas of a layer, in px."""
        low, high = self.layout.boxes_L22[self.number(name)]
        width, height = (int(side) + 1 for side in torch.ceil((high - low) * self._atlas_px_per_unit - 1e-3))
        return height, width

    def coverage(self, name: str) -> np.ndarray:
        """How well each px of the exported atlas of a layer is seen in the frame that sees it best: float32 (h, w) in [0, 1]."""
        height, width = self.atlas_size(name)
        low_height, low_width = self._coarse_size(name)
        times, sides = range(self.layout.num_frames), (2 * self.layout.height, 2 * self.layout.width)
        uv_px = self.uv_px(name, *sides, times) / self.config.export_scale
        most = covered(uv_px, self.weights(*sides, times)[self.number(name)], low_height, low_width)
        return sampled(most, grid_px(height, width) / self.config.export_scale)

    def atlas_rgba(self, name: str) -> np.ndarray:
        """The atlas of a layer as a picture to paint on: uint8 (h, w, 4), its alpha says what the frames see of it.

        Outside of what they see, an atlas holds what no loss has looked at.
        """
        rgb_HW3 = self._colors_at(self.number(name), grid_px(*self.atlas_size(name)))
        return np.concatenate([to_bytes(rgb_HW3), to_bytes(self.coverage(name))[..., None]], axis=-1)

    def from_frame(self, name: str, rgba_HW4: np.ndarray, time: float) -> np.ndarray:
        """What is painted on a frame, brought to the atlas of a layer: uint8 (h, w, 4), to be laid over the atlas.

        Only what lies on the layer comes along: paint beside an object does not stick to it.

        Args:
            rgba_HW4: uint8, a picture over the frame, of any size; its alpha says where it is painted. time: number of the frame.
        """
        height, width = self.layout.height, self.layout.width
        scale, number = self.config.export_scale, self.number(name)
        uv_px_HW2 = self.uv_px(name, height, width, [time])[0] / scale
        mapping, low = self.network.mappings[number], self.layout.boxes_L22[number, 0]

        def to_atlas(xy_P2: np.ndarray) -> np.ndarray:
            xy = torch.from_numpy(xy_P2).float()
            points_P3 = self.layout.points(xy[:, 0], xy[:, 1], torch.full_like(xy[:, 0], time))
            uv_P2 = self._at_points(mapping, points_P3) - low
            return uv_P2.numpy().astype(np.float64) * self.layout.half_px

        xy_px, found = inverted(to_atlas, uv_px_HW2, *self._coarse_size(name))
        weight_HW = self.weights(height, width, [time])[number, 0]
        fine = grid_px(*self.atlas_size(name)) / scale
        xy_px, found = sampled(xy_px, fine), sampled(found, fine) > 0.99
        on_layer = sampled(weight_HW, xy_px) * found
        painted = rgba_HW4.astype(np.float32) / 255
        painted[..., :3] *= painted[..., 3:]
        to_painted = np.array([rgba_HW4.shape[1] / width, rgba_HW4.shape[0] / height])
        brought = sampled(painted, (xy_px + 0.5) * to_painted - 0.5)
        color = brought[..., :3] / np.maximum(brought[..., 3:], 1e-6)
        alpha = brought[..., 3:] * np.minimum(1, 2 * on_layer[..., None])
        return to_bytes(np.concatenate([color, alpha], axis=-1))

    def _coarse_size(self, name: str) -> tuple[int, int]:
        """Of an atlas with one px for each px of a frame."""
        height, width = (-int(-(side - 1) // self.config.export_scale) + 1 for side in self.atlas_size(name))
        return height, width


def _copied(value: Any) -> Any:
    """A state dict that does not change with what it was taken from."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(own) for key, own in value.items()}
    return [_copied(own) for own in value] if isinstance(value, list | tuple) else value
