"""What can be chosen of an Omnimatte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ssvid.bounds import AtLeast, Between, OneOf, Positive, Share, check


@dataclass(frozen=True)
class OmnimatteConfig:
    """Settings of a fit; the defaults are for videos with a short side of about 64 to 96 px on two cores.

    iterations: steps of the optimizer. batch_frames: frames of each. short_side_px: of the frames that are fitted to, see ``fit_size``.
    width: channels of the first stage of the network. noise_channels: of the noise canvas, 0 for none. noise_cell_px: how fine it is.
    flow: whether the flow inside the mask is part of the input. camera: ``static``, ``moving``, or ``auto`` to look.
    learning_rate: of the network. canvas_learning_rate: of the background. Both stay for
    ``constant_share`` of the iterations and then fall to ``final_rate_times`` of what they were.
    grown_px: by how much masks are grown before the background is looked for. band_px: around a mask, where its loss leaves alpha free.
    mask_weight, mask_target: of the mask loss, and where it falls to a tenth. alpha_l1_weight, alpha_l0_weight: that keep layers empty;
    the first until ``alpha_l1_share`` of the iterations.
    """

    iterations: Annotated[int, AtLeast(1)] = 500
    batch_frames: Annotated[int, AtLeast(1)] = 8
    short_side_px: Annotated[int, Between(32, 512)] = 80
    width: Annotated[int, AtLeast(1)] = 16
    noise_channels: Annotated[int, AtLeast(0)] = 4
    noise_cell_px: Annotated[float, Positive] = 8.0
    flow: bool = True
    camera: Annotated[str, OneOf("auto", "static", "moving")] = "auto"
    learning_rate: Annotated[float, Positive] = 1e-3
    canvas_learning_rate: Annotated[float, Positive] = 5e-3
    constant_share: Annotated[float, Between(0, 1)] = 0.6
    final_rate_times: Annotated[float, Between(0, 1)] = 0.05
    grown_px: Annotated[int, AtLeast(0)] = 2
    band_px: Annotated[int, AtLeast(0)] = 4
    mask_weight: Annotated[float, AtLeast(0)] = 1.0
    mask_target: Annotated[float, Positive] = 0.02
    alpha_l1_weight: Annotated[float, AtLeast(0)] = 0.01
    alpha_l0_weight: Annotated[float, AtLeast(0)] = 0.005
    alpha_l1_share: Annotated[float, Share] = 0.7

    def __post_init__(self) -> None:
        check(self)


def fit_size(height: int, width: int, short_side_px: int) -> tuple[int, int]:
    """Height and width that frames are fitted at: the short side as asked, never larger than they are."""
    scale = min(1.0, short_side_px / min(height, width))
    return round(height * scale), round(width * scale)
