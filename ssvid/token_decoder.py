"""From the tokens that a network has seen to something about others: what the tasks share that hide a part of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssvid.backbones.attention import NORM_EPS, Block, SelfAttention, Variant, initialize_transformer
from ssvid.backbones.positions import sincos_3d, sincos_flat

FLAT = 1e-6  # errors of a guess below it are nothing to explain


class TokenDecoder(nn.Module):
    """A linear layer to its own width; one learned token for each kind of question stands for each cell that is asked for; to
    all a fixed table of positions is added; blocks, a normalization, and a linear layer on those that are asked for.

    (VideoMAE, Tong et al. 2022, section 3.2; the predictor of V-JEPA, Bardes et al. 2024, section 3.2.)

    Args:
        width_in, width_out: of what is seen, and of what is said. grid: cells T', H', W'. variant: width, depth and heads.
        num_kinds: of questions. asked_std: spread of
            their tokens at first, 0 at 0. bias: whether the first layer has one. positions:
            ``flat``: the table is that of the number of a cell (VideoMAE); ``axes``: that of three axes; ``near``: the same less its mean, which
            says nothing, brought to a mean square of 1, so that it outweighs what is seen, and each block begins with attention to what
            lies near (``look_near``), for short training.
    """

    positions_ND: Tensor

    def __init__(
        self,
        width_in: int,
        width_out: int,
        grid: Sequence[int],
        variant: Variant,
        *,
        num_kinds: int = 1,
        asked_std: float = 0.0,
        bias: bool = True,
        positions: str = "axes",
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(width_in, variant.width, bias=bias)
        self.asked = nn.Parameter(torch.zeros(num_kinds, variant.width))
        blocks = [Block(variant) for _ in range(variant.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(variant.width, NORM_EPS)
        self.leave = nn.Linear(variant.width, width_out)
        initialize_transformer(self, blocks)
        if asked_std:
            nn.init.trunc_normal_(self.asked, std=asked_std)
        table_ND = (sincos_flat if positions == "flat" else sincos_3d)(tuple(grid), variant.width).flatten(1).T
        if positions == "near":
            table_ND = table_ND - table_ND.mean(dim=0)
            table_ND = table_ND / table_ND.square().mean().sqrt()
            for block in blocks:
                look_near(block.attn)
        self.register_buffer("positions_ND", table_ND.contiguous(), persistent=False)

    def forward(self, seen_BKD: Tensor, seen_BK: Tensor, wanted_BM: Tensor, kind: int = 0) -> Tensor:
        """What is said (B, M, width_out) of the cells ``wanted_BM``, from the tokens of the cells ``seen_BK``. kind: of the question."""
        known_BKD = self.enter(seen_BKD) + self.positions_ND[seen_BK]
        asked_BMD = self.asked[kind] + self.positions_ND[wanted_BM]
        tokens_BLD = torch.cat([known_BKD, asked_BMD.to(known_BKD.dtype)], dim=1)
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD)
        said_BMD: Tensor = self.leave(self.norm(tokens_BLD[:, known_BKD.shape[1] :]))
        return said_BMD


def look_near(attention: SelfAttention) -> None:
    """Begin with attention to tokens that are alike, and with taking over what stands there.

    Queries and keys are made by one orthogonal matrix, so that with one head no token is attended to more than one's
    own; values by another, whose inverse leads out.

    Differs: after the mimetic initialization of Trockman and Kolter (ICML 2023, arXiv 2305.09828), where queries times
    keys is the identity in part only, and values times output minus it: there a token changes what it has, here one
    that has nothing takes over what is near.
    """
    width = attention.proj.in_features
    alike, passed = (nn.init.orthogonal_(torch.empty(width, width)) for _ in range(2))
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([alike, alike, passed]))
        attention.proj.weight.copy_(passed.T)


def heads_of(width: int, head_width: int) -> int:
    """So many heads that each is near ``head_width`` wide, and that divide the width."""
    return next(heads for heads in range(max(1, width // head_width), 0, -1) if width % heads == 0)


def explained(errors: Tensor, of_guess: Tensor) -> Tensor:
    """1 - L / L(guess): the share of a guess's error that an answer saves; 0 where the guess makes none."""
    return torch.where(of_guess > FLAT, 1 - errors / of_guess.clamp_min(FLAT), torch.zeros_like(errors))
