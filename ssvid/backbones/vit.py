"""A video transformer over cubes of the clip: the network of VideoMAE and V-JEPA, and of our own training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import torch
from torch import Tensor, nn

from ssvid.backbones.attention import (
    NORM_EPS,
    VARIANTS,
    Block,
    Rotation,
    blocks_of_stage,
    drop_path_rates,
    initialize_transformer,
    stage_ends,
)
from ssvid.backbones.contract import Backbone, BackboneInfo, StageInfo, check_option, register_backbone
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD
from ssvid.backbones.positions import FixedTable, LearnedTables, rope_3d, sincos_3d, sincos_flat
from ssvid.backbones.tokens import kept_places, place_tokens, take_tokens
from ssvid.backbones.vit_keys import from_public, layout_of
from ssvid.errors import CheckpointError, RecipeError

# Name of the positions -> layout of rotary ones, None where a table is added.
POSITIONS = {"sincos": None, "sincos_flat": None, "learned": None, "rope": "interleaved", "rope_tiled": "tiled"}


@register_backbone("vit")
class VideoTransformer(Backbone):
    """ViT over tubelets: a token for each cube of frames and pixels, all tokens of a clip in one attention, no class token.

    The encoder of VideoMAE (Tong 2022, arXiv:2203.12602, sec. 3), of V-JEPA (Bardes 2024, arXiv:2404.08471) and V-JEPA 2
    (Assran 2025, arXiv:2506.09985), which differ in their positions. Keys are V-JEPA's; ``ssvid.backbones.vit_keys``
    renames those of other public files. A stage is a quarter of the blocks; the last ends with the final normalization.
    Frames and pixels that fill no cube are left out at the end.

    Args:
        variant: "mini" (96 wide, 4 blocks, ours), "tiny" (192), "small" (384), "base" (768) or "large" (1024).
        positions: "sincos" (V-JEPA's table of three axes), "sincos_flat" (VideoMAE's table of one axis), "learned" (a
            table over space and one over time), "rope" (rotary along three axes) or "rope_tiled" (as V-JEPA 2's weights
            need it, see ``rope_3d``).
        num_frames, size_px: length and side of the clips that tables are made for; they are interpolated to others.
        tubelet_frames, patch_px: frames and pixels of a cube. Both change the first layer's weights.
        drop_path: rate at which residual paths of the last block are left out in training, falling to 0 for the first.
        final_norm: whether the last stage ends with a normalization. VideoMAE's fine-tuned files have none.
    """

    drops_tokens = True

    def __init__(
        self,
        *,
        variant: str = "small",
        positions: str = "sincos",
        num_frames: int = 16,
        size_px: int = 224,
        tubelet_frames: int = 2,
        patch_px: int = 16,
        drop_path: float = 0.0,
        final_norm: bool = True,
    ) -> None:
        options = {
            "variant": variant,
            "positions": positions,
            "num_frames": num_frames,
            "size_px": size_px,
            "tubelet_frames": tubelet_frames,
            "patch_px": patch_px,
            "drop_path": drop_path,
            "final_norm": final_norm,
        }
        check_option("vit", "positions", positions, tuple(POSITIONS))
        check_transformer_options("vit", options)
        super().__init__(transformer_info("vit", options))
        self.variant = VARIANTS[variant]
        grid = (num_frames // tubelet_frames, size_px // patch_px, size_px // patch_px)
        self.rope_layout = POSITIONS[positions]
        self.patch_embed = Tubelets(self.variant.width, tubelet_frames, patch_px)
        rates = drop_path_rates(drop_path, self.variant.depth)
        self.blocks = nn.ModuleList(Block(self.variant, rate) for rate in rates)
        self.norm = nn.LayerNorm(self.variant.width, NORM_EPS) if final_norm else nn.Identity()
        initialize_transformer(self, list(self.blocks))
        self.positions = _table(positions, grid, self.variant.width)

    @overload
    def forward(self, clip_BCTHW: Tensor, stage: str | None = None, keep_BN: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(
        self, clip_BCTHW: Tensor, stage: list[str] | tuple[str, ...], keep_BN: Tensor | None = None
    ) -> tuple[Tensor, ...]: ...

    def forward(
        self,
        clip_BCTHW: Tensor,
        stage: str | list[str] | tuple[str, ...] | None = None,
        keep_BN: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """As ``Backbone.forward``, with some of the tokens dropped before the first block.

        Args:
            clip_BCTHW, stage: as there.
            keep_BN: bool over the cells of the map (W' fastest), equally many True in each clip. Dropped tokens enter no
                attention, and their cells are zero in the map of every stage (``ssvid.backbones.tokens`` takes the kept
                ones out). None keeps all.

        Raises:
            BackboneInputError: the clip, or ``keep_BN``, is not what the network takes.
            RecipeError: there is no such stage.
        """
        self._check_clip(clip_BCTHW)
        return self._as_asked(self._run(self.normalize(clip_BCTHW), self._wanted(stage), keep_BN), stage)

    def rename_public_keys(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Keys of VideoMAE's files and of the ones of transformers under ours (``ssvid.backbones.vit_keys``).

        V-JEPA's files hold the table of their positions, which is computed here: it is compared and left out.

        Raises:
            CheckpointError: that table is another than this network's, or a block is not whole.
        """
        layout = layout_of(state)
        said = [f"renamed its keys from layout {layout}"] if layout not in ("", "vjepa") else []
        own = from_public(state)
        for key in [key for key in own if key.rpartition(".")[2] == "pos_embed"]:
            if isinstance(self.positions, LearnedTables) or own[key].shape[-1] != self.variant.width:
                continue
            self._check_table(own.pop(key))
            said.append(f"left {key}, which is computed")
        return own, ", ".join(said)

    def _check_table(self, table_1ND: Tensor) -> None:
        """Rotary networks ignore the table that their files still carry."""
        if not isinstance(self.positions, FixedTable):
            return
        own_1ND = self.positions(self.positions.table_1DTHW.shape[2:])
        if own_1ND.shape != table_1ND.shape or not torch.allclose(own_1ND, table_1ND.to(own_1ND.dtype), atol=1e-4):
            options = self.info.options
            raise CheckpointError(
                f"the weights were trained with a table of positions for {table_1ND.shape[1]} tokens that is not the one "
                f"that {options['positions']} gives for {options['num_frames']} frames of {options['size_px']} px "
                f"({own_1ND.shape[1]} tokens). Set the options positions, num_frames and size_px of vit to those of the weights."
            )

    def run_stages(self, x_BCTHW: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the named stages from a normalized clip; nothing deeper is computed."""
        return self._run(x_BCTHW, names, None)

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        """Compute one stage from the map of the stage before it, all tokens kept."""
        tokens_BND, grid = self._embed(x_BCTHW) if name == self.info.stage_names[0] else _tokens_and_grid(x_BCTHW)
        return place_tokens(self._run_blocks(name, tokens_BND, self._rotation(grid, tokens_BND, None)), grid, None)

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The blocks of a stage; before those of the first the embedding, after those of the last the normalization."""
        first = (self.patch_embed, self.positions) if name == self.info.stage_names[0] else ()
        last = (self.norm,) if name == self.info.stage_names[-1] else ()
        return (*first, *self._blocks_of(name), *last)

    def _blocks_of(self, name: str) -> list[nn.Module]:
        return blocks_of_stage(self.blocks, self.info.depth(name))

    def _run(self, x_BCTHW: Tensor, names: Sequence[str], keep_BN: Tensor | None) -> dict[str, Tensor]:
        tokens_BND, grid = self._embed(x_BCTHW)
        places_BK = None if keep_BN is None else kept_places(keep_BN, x_BCTHW.shape[0], grid)
        if places_BK is not None:
            tokens_BND = take_tokens(tokens_BND, places_BK)
        rotation = self._rotation(grid, tokens_BND, places_BK)
        maps: dict[str, Tensor] = {}
        for name in self.stages_down_to(names):
            tokens_BND = self._run_blocks(name, tokens_BND, rotation)
            if name in names:
                maps[name] = place_tokens(tokens_BND, grid, places_BK)
        return maps

    def _embed(self, x_BCTHW: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """All tokens of a normalized clip, with the tables of positions added, and their grid."""
        tokens_BND, grid = _tokens_and_grid(self.patch_embed(x_BCTHW))
        return (tokens_BND if self.rope_layout else tokens_BND + self.positions(grid)), grid

    def _rotation(self, grid: Sequence[int], tokens_BND: Tensor, places_BK: Tensor | None) -> Rotation | None:
        if self.rope_layout is None:
            return None
        head_width = self.variant.width // self.variant.num_heads
        whole = rope_3d(grid, head_width, self.rope_layout, tokens_BND.device)
        if places_BK is None:
            return whole
        return Rotation(*(values[0, 0][places_BK][:, None] for values in whole))

    def _run_blocks(self, name: str, tokens_BND: Tensor, rotation: Rotation | None) -> Tensor:
        for block in self._blocks_of(name):
            tokens_BND = block(tokens_BND, rotation)
        return self.norm(tokens_BND) if name == self.info.stage_names[-1] else tokens_BND


class Tubelets(nn.Module):
    """One linear map of each cube of frames and pixels, as a convolution whose kernel is its stride. BCTHW to BDT'H'W'."""

    def __init__(self, width: int, tubelet_frames: int, patch_px: int) -> None:
        super().__init__()
        cube = (tubelet_frames, patch_px, patch_px)
        self.proj = nn.Conv3d(3, width, cube, cube)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Embed."""
        return self.proj(x_BCTHW)


def check_transformer_options(name: str, options: dict[str, object]) -> None:
    """Refuse sizes that no transformer can have.

    Raises:
        RecipeError: an option is not legal; the text says which and why.
    """
    check_option(name, "variant", options["variant"], tuple(VARIANTS))
    for option in ("num_frames", "size_px", "tubelet_frames", "patch_px"):
        value = options.get(option, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RecipeError(f"backbone {name}: {option} ({value!r}) must be a whole number of at least 1.")
    for whole, part in (("num_frames", "tubelet_frames"), ("size_px", "patch_px")):
        if options[whole] % options.get(part, 1):  # type: ignore[operator]
            raise RecipeError(
                f"backbone {name}: {whole} ({options[whole]}) must be a multiple of {part} ({options[part]}), so that cubes "
                "fill the clip. Clips of other sizes are taken all the same."
            )
    rate = options["drop_path"]
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise RecipeError(f"backbone {name}: drop_path ({rate!r}) must be a number of at least 0 and below 1.")
    if not isinstance(options.get("final_norm", True), bool):
        raise RecipeError(f"backbone {name}: final_norm ({options['final_norm']!r}) must be true or false.")


def transformer_info(name: str, options: dict[str, object]) -> BackboneInfo:
    """What is known of a transformer of these options."""
    variant = VARIANTS[str(options["variant"])]
    frames, pixels, num_frames, size = (
        int(str(options.get(key, 1))) for key in ("tubelet_frames", "patch_px", "num_frames", "size_px")
    )
    stages = tuple(StageInfo(f"block{end}", variant.width, pixels, frames) for end in stage_ends(variant.depth))
    return BackboneInfo(
        name,
        stages,
        min_frames=frames,
        min_px=pixels,
        size=size,
        num_frames=num_frames,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        full_maps=False,
        options=options,
    )


def _tokens_and_grid(map_BCTHW: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    return map_BCTHW.flatten(2).transpose(1, 2), tuple(map_BCTHW.shape[2:])


def _table(positions: str, grid: tuple[int, int, int], width: int) -> nn.Module:
    if positions == "learned":
        return LearnedTables(grid, width)
    if positions == "sincos":
        return FixedTable(sincos_3d(grid, width), "bilinear")
    if positions == "sincos_flat":
        return FixedTable(sincos_flat(grid, width), "bicubic")
    return nn.Identity()  # rotary: nothing is added
