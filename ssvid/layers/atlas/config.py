"""What can be chosen about a fit of atlases, and the two choices that are known to work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

from ssvid.bounds import AtLeast, BelowOne, OneOf, Positive, Share, check


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; see ``ssvid.layers.atlas.losses``. A weight of 0 leaves a loss out.

    rgb, gradient: colors and their differences. flow: that flow stays at one place of the atlas, per px. alpha_flow: that flow keeps
    alpha. rigidity: of neighboring pixels, all the time. global_rigidity: of pixels far apart, in the beginning;
    background_times: as much more for the background. sparsity: that an atlas of an object is black where nobody sees it. bootstrap:
    that alphas are those of the masks, in the beginning; mask: the same afterwards.
    """

    rgb: Annotated[float, AtLeast(0)] = 1.0
    gradient: Annotated[float, AtLeast(0)] = 0.2
    flow: Annotated[float, AtLeast(0)] = 0.01
    alpha_flow: Annotated[float, AtLeast(0)] = 0.02
    rigidity: Annotated[float, AtLeast(0)] = 0.001
    global_rigidity: Annotated[float, AtLeast(0)] = 0.005
    background_times: Annotated[float, AtLeast(0)] = 10.0
    sparsity: Annotated[float, AtLeast(0)] = 0.1
    bootstrap: Annotated[float, AtLeast(0)] = 0.2
    mask: Annotated[float, AtLeast(0)] = 0.02


@dataclass(frozen=True)
class AtlasConfig:
    """How atlases are fitted.

    start: where the mappings begin: ``identity``, every frame as it is, as published; ``chain``, similarities found in the flow of the
    object and of the background. alpha: ``mlp`` as published, or ``grid``, a value for every pixel of every frame. atlas: ``mlp`` as
    published, or ``grid``, pictures from 8 px up to ``texels_per_px`` texels for each px of a frame, added. learn_mapping: False leaves the
    mappings where they begin. mapping_frequencies: of the positional encoding that mappings see beside x, y and t, so that a body may bend;
    0 is none, as published.

    iterations: steps of Adam. num_patches, patch_px: squares of pixels in each; half of them lie on objects. global_rigidity_px: how far apart
    pixels are for it. global_rigidity_share, bootstrap_share: the share of the iterations in which these losses count.
    network_lr, grid_lr: rates of learning. warmup_iterations: rising to them; constant_share: the share of the iterations until when they
    stay; final_lr_times: where their cosine ends.

    export_scale: px of an exported atlas for each px of a frame that is fitted.
    """

    start: Annotated[str, OneOf("chain", "identity")] = "chain"
    alpha: Annotated[str, OneOf("grid", "mlp")] = "grid"
    atlas: Annotated[str, OneOf("grid", "mlp")] = "grid"
    learn_mapping: bool = True
    mapping_layers: Annotated[int, AtLeast(1)] = 3
    mapping_width: Annotated[int, AtLeast(1)] = 64
    mapping_frequencies: Annotated[int, AtLeast(0)] = 2
    alpha_layers: Annotated[int, AtLeast(1)] = 4
    alpha_width: Annotated[int, AtLeast(1)] = 64
    alpha_frequencies: Annotated[int, AtLeast(1)] = 5
    atlas_layers: Annotated[int, AtLeast(1)] = 5
    atlas_width: Annotated[int, AtLeast(1)] = 64
    atlas_frequencies: Annotated[int, AtLeast(1)] = 7
    texels_per_px: Annotated[float, Positive] = 1.25
    weights: LossWeights = field(default_factory=LossWeights)
    iterations: Annotated[int, AtLeast(1)] = 1000
    num_patches: Annotated[int, AtLeast(1)] = 64
    patch_px: Annotated[int, AtLeast(2)] = 8
    global_rigidity_px: Annotated[float, Positive] = 20.0
    global_rigidity_share: Annotated[float, BelowOne] = 0.3
    bootstrap_share: Annotated[float, BelowOne] = 0.4
    network_lr: Annotated[float, Positive] = 2e-3
    grid_lr: Annotated[float, Positive] = 2e-2
    warmup_iterations: Annotated[int, AtLeast(0)] = 30
    constant_share: Annotated[float, BelowOne] = 0.3
    final_lr_times: Annotated[float, Share] = 0.03
    export_scale: Annotated[float, Positive] = 4.0

    def check(self) -> None:
        """Make sure that every value is legal.

        Raises:
            RecipeError: all that is wrong, each with its rule and way out.
        """
        check(self, "atlas.")
        check(self.weights, "atlas.weights.")


FAST: Final = AtlasConfig()
PUBLISHED: Final = AtlasConfig(
    start="identity",
    alpha="mlp",
    atlas="mlp",
    mapping_frequencies=0,
    iterations=800,
    weights=LossWeights(mask=0.0),
)
# "published": the structure of the paper, made smaller. "fast": what fits in seconds on one core.
PRESETS: Final[Mapping[str, AtlasConfig]] = MappingProxyType({"fast": FAST, "published": PUBLISHED})
