"""TimeSformer: attention over time, then over space, in each block (Bertasius 2021, arXiv:2102.05095)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssvid.backbones.attention import (
    NORM_EPS,
    VARIANTS,
    DropPath,
    Mlp,
    SelfAttention,
    Variant,
    blocks_of_stage,
    drop_path_rates,
    initialize_transformer,
)
from ssvid.backbones.contract import Backbone, register_backbone
from ssvid.backbones.positions import fit_table
from ssvid.backbones.vit import check_transformer_options, transformer_info


@register_backbone("timesformer")
class TimeSformer(Backbone):
    """TimeSformer with divided space-time attention (Bertasius 2021, arXiv:2102.05095, sec. 3).

    A token is a patch of one frame. In each block a token first attends to those at its place in all frames, then to those
    of its own frame and the class token. Keys are those of the authors' files (blocks.0.temporal_attn.qkv.weight). Maps
    hold the patches; the class token is computed with them and stands in no map. A stage is a quarter of the blocks; the
    last ends with the final normalization. Pixels that fill no patch are left out at the end.

    Args:
        variant: "mini" (96 wide, 4 blocks, ours), "tiny" (192), "small" (384), "base" (768, the paper's) or "large" (1024).
        num_frames, size_px: length and side of the clips that positions are made for; they are interpolated to others.
            The paper has 8 x 224, 16 x 448 and 96 x 224.
        patch_px: side of a patch. Changes the first layer's weights.
        drop_path: rate at which residual paths of the last block are left out in training, falling to 0 for the first.

    Differs: positions are brought to other clips by bicubic interpolation in space, and by stretching in time for longer
    clips alone; the authors' code takes the nearest. Initial weights are those of V-JEPA 2's blocks, positions N(0, 0.02^2).
    """

    def __init__(
        self,
        *,
        variant: str = "small",
        num_frames: int = 8,
        size_px: int = 224,
        patch_px: int = 16,
        drop_path: float = 0.0,
    ) -> None:
        options = {
            "variant": variant,
            "num_frames": num_frames,
            "size_px": size_px,
            "patch_px": patch_px,
            "drop_path": drop_path,
        }
        check_transformer_options("timesformer", options)
        super().__init__(transformer_info("timesformer", options))
        self.variant = VARIANTS[variant]
        self.side = size_px // patch_px
        self.patch_embed = FramePatches(self.variant.width, patch_px)
        rates = drop_path_rates(drop_path, self.variant.depth)
        self.blocks = nn.ModuleList(DividedBlock(self.variant, rate) for rate in rates)
        self.norm = nn.LayerNorm(self.variant.width, NORM_EPS)
        initialize_transformer(self, list(self.blocks))
        for block in list(self.blocks)[1:]:  # sec. 3: all but the first start without time
            for parameter in block.get_submodule("temporal_fc").parameters():
                nn.init.zeros_(parameter)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.variant.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.side**2, self.variant.width))
        self.time_embed = nn.Parameter(torch.empty(1, num_frames, self.variant.width))
        for table in (self.cls_token, self.pos_embed, self.time_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def run_stages(self, x_BCTHW: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the named stages from a normalized clip; nothing deeper is computed."""
        patches_BDTHW = self.patch_embed(x_BCTHW)
        grid = tuple(patches_BDTHW.shape[2:])
        tokens_BTND = patches_BDTHW.flatten(3).permute(0, 2, 3, 1) + self._positions(grid)
        class_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(x_BCTHW.shape[0], -1, -1)
        maps: dict[str, Tensor] = {}
        for name in self.stages_down_to(names):
            for block in self._blocks_of(name):
                class_B1D, tokens_BTND = block(class_B1D, tokens_BTND)
            if name == self.info.stage_names[-1]:
                tokens_BTND = self.norm(tokens_BTND)
            if name in names:
                maps[name] = tokens_BTND.permute(0, 3, 1, 2).unflatten(3, grid[1:])
        return maps

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        """A later stage needs the class token too, which no map holds: ask ``forward`` or ``run_stages``."""
        raise NotImplementedError(f"{name} cannot be computed from the map before it; call run_stages")

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The blocks of a stage; before those of the first the embedding, after those of the last the normalization."""
        first = (self.patch_embed,) if name == self.info.stage_names[0] else ()
        last = (self.norm,) if name == self.info.stage_names[-1] else ()
        return (*first, *self._blocks_of(name), *last)

    def _blocks_of(self, name: str) -> list[nn.Module]:
        return blocks_of_stage(self.blocks, self.info.depth(name))

    def _positions(self, grid: Sequence[int]) -> Tensor:
        """What is added to the patches of a grid, 1TND: a table of space and one of time."""
        space_1DTHW = self.pos_embed[:, 1:].unflatten(1, (1, self.side, self.side)).permute(0, 4, 1, 2, 3)
        time_1DTHW = self.time_embed.transpose(1, 2)[..., None, None]
        space = fit_table(space_1DTHW, (1, grid[1], grid[2]), "bicubic")
        time = fit_table(time_1DTHW, (grid[0], 1, 1), "bilinear")
        return (space + time).flatten(3).permute(0, 2, 3, 1)


class FramePatches(nn.Module):
    """One linear map of each patch of each frame. BCTHW to BDTH'W'. The key is ``proj``, a 2-D convolution."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, patch_px)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Embed."""
        maps = self.proj(x_BCTHW.transpose(1, 2).flatten(0, 1))
        return maps.unflatten(0, (-1, x_BCTHW.shape[2])).transpose(1, 2)


class DividedBlock(nn.Module):
    """Attention over time, attention over space, MLP, each pre-norm beside a residual path (sec. 3, eqs. 9 to 11).

    The temporal path ends in a linear layer of its own. The class token takes no part in it; over space each frame has a
    copy of it, and what the copies see is averaged.
    """

    def __init__(self, variant: Variant, drop_path: float = 0.0) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(variant.width, NORM_EPS)
        self.temporal_attn = SelfAttention(variant.width, variant.num_heads)
        self.temporal_fc = nn.Linear(variant.width, variant.width)
        self.norm1 = nn.LayerNorm(variant.width, NORM_EPS)
        self.attn = SelfAttention(variant.width, variant.num_heads)
        self.norm2 = nn.LayerNorm(variant.width, NORM_EPS)
        self.mlp = Mlp(variant.width)
        self.drop_path = DropPath(drop_path)

    def forward(self, class_B1D: Tensor, tokens_BTND: Tensor) -> tuple[Tensor, Tensor]:
        """Compute: the class token and the patches of each frame."""
        batch, num_frames, num_patches, _ = tokens_BTND.shape
        along_time = self.temporal_norm1(tokens_BTND).transpose(1, 2).flatten(0, 1)
        seen = self.temporal_attn(along_time).unflatten(0, (batch, num_patches)).transpose(1, 2)
        tokens_BTND = tokens_BTND + self.drop_path(self.temporal_fc(seen))

        frames = torch.cat([class_B1D[:, None].expand(-1, num_frames, -1, -1), tokens_BTND], dim=2)
        seen = self.drop_path(self.attn(self.norm1(frames.flatten(0, 1))).unflatten(0, (batch, num_frames)))
        class_B1D = class_B1D + seen[:, :, 0].mean(dim=1, keepdim=True)
        tokens_BTND = tokens_BTND + seen[:, :, 1:]

        all_tokens = torch.cat([class_B1D, tokens_BTND.flatten(1, 2)], dim=1)
        all_tokens = all_tokens + self.drop_path(self.mlp(self.norm2(all_tokens)))
        return all_tokens[:, :1], all_tokens[:, 1:].unflatten(1, (num_frames, num_patches))
