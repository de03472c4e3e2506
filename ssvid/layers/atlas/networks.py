"""Networks of a layered atlas: where each point lies in the atlas of each layer, how opaque objects are, and the atlases.

Kasten et al., *Layered Neural Atlases for Consistent Video Editing* (SIGGRAPH Asia 2021, arXiv 2109.11418), section 3. The letters are those of
``ssvid.layers.atlas.layout``.

Differs: networks are smaller; each layer has an atlas of its own, and several objects may lie one in front of the other; a mapping is learned as
the difference to where it begins, which takes the place of the pretraining of mappings. Alpha and atlases may be grids.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.layers.atlas.config import AtlasConfig
from ssvid.layers.atlas.layout import Layout

_SURE_LOGIT = 3.0  # of alpha in a mask, where it begins
_COARSEST_PX = 8
_COARSE_SPACE, _COARSE_TIME = 4, 2  # px and frames for each cell of the coarse grid of alpha


class Seen(NamedTuple):
    """What points show. uv_LP2: where they lie in each atlas; alphas_NP: of objects; weights_LP: how much of each layer is seen there, 1 in
    all; colors_LP3: of the atlases, in [0, 1].
    """

    uv_LP2: Tensor
    alphas_NP: Tensor
    weights_LP: Tensor
    colors_LP3: Tensor

    def composed(self) -> Tensor:
        """The layers put together, (P, 3)."""
        return (self.weights_LP[..., None] * self.colors_LP3).sum(dim=0)


def front_to_back(alphas_NP: Tensor) -> Tensor:
    """How much is seen of each layer: its alpha, times what all in front of it let pass; (N + 1, P), the background last."""
    passed_LP = torch.cat([torch.ones_like(alphas_NP[:1]), torch.cumprod(1 - alphas_NP, dim=0)])
    return torch.cat([alphas_NP * passed_LP[:-1], passed_LP[-1:]])


def encode(points_PD: Tensor, num_frequencies: int) -> Tensor:
    """Positional encoding: sin and cos of 2^j pi x for j = 0 .. num_frequencies - 1, (P, 2 * D * num_frequencies)."""
    factors = math.pi * 2.0 ** torch.arange(num_frequencies, device=points_PD.device)
    angles_PDF = points_PD[..., None] * factors
    return torch.cat([angles_PDF.sin(), angles_PDF.cos()], dim=-1).flatten(1)


def perceptron(num_in: int, num_out: int, width: int, num_layers: int) -> nn.Sequential:
    """``num_layers`` hidden layers with ReLU, and a linear one."""
    widths = [num_in, *[width] * num_layers]
    hidden = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU(inplace=True))]
    return nn.Sequential(*hidden, nn.Linear(width, num_out))


class Mapping(nn.Module):
    """From points (x, y, t) to places (u, v) of one atlas: a similarity for each frame, and what a network adds. It begins with 0."""

    chain_T23: Tensor

    def __init__(self, chain_T23: Tensor, config: AtlasConfig) -> None:
        super().__init__()
        self.register_buffer("chain_T23", chain_T23.clone())
        self.num_frequencies = config.mapping_frequencies
        num_in = 3 + 6 * config.mapping_frequencies
        self.residual = perceptron(num_in, 2, config.mapping_width, config.mapping_layers)
        last = self.residual[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.requires_grad_(config.learn_mapping)

    def forward(self, xyt_P3: Tensor) -> Tensor:
        """(P, 2). Between two frames the similarity is between theirs."""
        last = len(self.chain_T23) - 1
        place_P = (xyt_P3[:, 2] + 1) * (last / 2)
        below_P = place_P.floor().clamp(0, last - 1).long()
        share_P = (place_P - below_P)[:, None, None]
        matrices_P23 = torch.lerp(self.chain_T23[below_P], self.chain_T23[below_P + 1], share_P)
        begun_P2 = (matrices_P23[:, :, :2] * xyt_P3[:, None, :2]).sum(dim=2) + matrices_P23[:, :, 2]
        seen_PD = torch.cat([xyt_P3, encode(xyt_P3, self.num_frequencies)], dim=1)
        return begun_P2 + self.residual(seen_PD)


class AlphaNetwork(nn.Module):
    """The logit of alpha at points, by a network on encoded points, as published."""

    def __init__(self, config: AtlasConfig) -> None:
        super().__init__()
        self.num_frequencies = config.alpha_frequencies
        self.network = perceptron(6 * config.alpha_frequencies, 1, config.alpha_width, config.alpha_layers)

    def forward(self, xyt_P3: Tensor) -> Tensor:
        """(P,)."""
        logits_P: Tensor = self.network(encode(xyt_P3, self.num_frequencies))[:, 0]
        return logits_P


class AlphaGrid(nn.Module):
    """The logit of alpha at points: of each pixel in each frame one, and one of a coarser grid, each between its neighbors, added."""

    to_grid_3: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        shape = (layout.num_frames, layout.height, layout.width)
        coarse = (_COARSE_TIME, _COARSE_SPACE, _COARSE_SPACE)
        self.fine = nn.Parameter(torch.zeros(1, 1, *shape))
        self.coarse = nn.Parameter(torch.zeros(1, 1, *(math.ceil(n / c) for n, c in zip(shape, coarse, strict=True))))
        sides = (2 * layout.half_px / max(side - 1, 1) for side in (layout.width, layout.height))
        self.register_buffer("to_grid_3", torch.tensor([*sides, 1.0]))

    def start_from(self, mask_THW: Tensor) -> None:
        """Begin with the mask, bool."""
        with torch.no_grad():
            self.fine[0, 0] = _SURE_LOGIT * (2 * mask_THW.float() - 1)

    def forward(self, xyt_P3: Tensor) -> Tensor:
        """(P,). A point outside has what is at the border."""
        grid_111P3 = (xyt_P3 * self.to_grid_3)[None, None, None]
        logits = [
            F.grid_sample(volume, grid_111P3, padding_mode="border", align_corners=True)
            for volume in (self.fine, self.coarse)
        ]
        return (logits[0] + logits[1]).flatten()


class AtlasNetwork(nn.Module):
    """Colors at places of an atlas, by a network on encoded places, as published."""

    box_22: Tensor

    def __init__(self, box_22: Tensor, config: AtlasConfig) -> None:
        super().__init__()
        self.num_frequencies = config.atlas_frequencies
        self.register_buffer("box_22", box_22.clone())
        self.network = perceptron(4 * config.atlas_frequencies, 3, config.atlas_width, config.atlas_layers)

    def forward(self, uv_P2: Tensor) -> Tensor:
        """(P, 3) in [0, 1]."""
        return torch.sigmoid(self.network(encode(_from_box(uv_P2, self.box_22), self.num_frequencies)))


class AtlasGrid(nn.Module):
    """Colors at places of an atlas: pictures of logits, each twice as fine as the one before, added. It begins gray."""

    box_22: Tensor

    def __init__(self, box_22: Tensor, half_px: float, texels_per_px: float) -> None:
        super().__init__()
        self.register_buffer("box_22", box_22.clone())
        finest_2 = (box_22[1] - box_22[0]) * half_px * texels_per_px
        longest = math.ceil(float(finest_2.max()))
        powers = range(int(math.log2(_COARSEST_PX)), 31)
        sides = [*itertools.takewhile(lambda side: side < longest, (2**power for power in powers)), longest]
        sizes = [[max(2, math.ceil(side * float(own / finest_2.max()))) for own in finest_2.flip(0)] for side in sides]
        self.levels = nn.ParameterList(nn.Parameter(torch.zeros(1, 3, *size)) for size in sizes)

    def forward(self, uv_P2: Tensor) -> Tensor:
        """(P, 3) in [0, 1]. A place outside has what is at the border."""
        grid_1P12 = _from_box(uv_P2, self.box_22)[None, :, None]
        logits = [F.grid_sample(level, grid_1P12, padding_mode="border", align_corners=True) for level in self.levels]
        return torch.sigmoid(torch.stack(logits).sum(dim=0)[0, :, :, 0].T)


def _from_box(uv_P2: Tensor, box_22: Tensor) -> Tensor:
    """Places with the box as [-1, 1]."""
    return 2 * (uv_P2 - box_22[0]) / (box_22[1] - box_22[0]) - 1


class LayeredAtlases(nn.Module):
    """All networks of one clip."""

    def __init__(self, layout: Layout, config: AtlasConfig) -> None:
        super().__init__()
        self.mappings = nn.ModuleList(Mapping(chain, config) for chain in layout.chains_LT23)
        self.alphas = nn.ModuleList(
            AlphaGrid(layout) if config.alpha == "grid" else AlphaNetwork(config) for _ in range(layout.num_objects)
        )
        self.atlases = nn.ModuleList(
            AtlasGrid(box, layout.half_px, config.texels_per_px)
            if config.atlas == "grid"
            else AtlasNetwork(box, config)
            for box in layout.boxes_L22
        )

    def forward(self, xyt_P3: Tensor) -> Seen:
        """What points show."""
        uv_LP2, alphas_NP = self.places(xyt_P3), self.opacities(xyt_P3)
        colors = [atlas(uv_P2) for atlas, uv_P2 in zip(self.atlases, uv_LP2, strict=True)]
        return Seen(uv_LP2, alphas_NP, front_to_back(alphas_NP), torch.stack(colors))

    def start_from(self, masks_NTHW: Tensor) -> None:
        """Begin with the masks of the objects, bool, where alphas are grids; networks begin as they are drawn."""
        for alpha, mask_THW in zip(self.alphas, masks_NTHW, strict=True):
            if isinstance(alpha, AlphaGrid):
                alpha.start_from(mask_THW)

    def places(self, xyt_P3: Tensor) -> Tensor:
        """Where points lie in every atlas, (L, P, 2)."""
        return torch.stack([mapping(xyt_P3) for mapping in self.mappings])

    def opacities(self, xyt_P3: Tensor) -> Tensor:
        """Alphas of all objects, (N, P)."""
        return torch.sigmoid(torch.stack([alpha(xyt_P3) for alpha in self.alphas]))

    def parameters_of(self, kind: str) -> list[nn.Parameter]:
        """Those of ``grid`` or of ``network``, as far as they are learned."""
        grids = {id(p) for part in self.modules() if isinstance(part, AlphaGrid | AtlasGrid) for p in part.parameters()}
        return [p for p in self.parameters() if p.requires_grad and (id(p) in grids) == (kind == "grid")]
