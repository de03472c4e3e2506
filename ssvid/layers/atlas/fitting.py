"""The fit: patches of pixels, the losses, Adam, and a schedule; it can stop at any step and go on as if it had not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ssvid.layers.atlas.config import AtlasConfig
from ssvid.layers.atlas.layout import Layout, lay_out
from ssvid.layers.atlas.losses import (
    alpha_flow_loss,
    bootstrap_loss,
    flow_loss,
    gradient_loss,
    rgb_loss,
    rigidity,
    sparsity_loss,
)
from ssvid.layers.atlas.model import AtlasModel
from ssvid.layers.atlas.networks import LayeredAtlases, Seen
from ssvid.layers.atlas.sampling import Patches, Pixels
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import ClipMotion

# Called after every step with the model as it is and the losses of the step, before their weights.
OnStep = Callable[[AtlasModel, Mapping[str, float]], None]


def fit_atlas(
    clip: LayerClip,
    motion: ClipMotion,
    config: AtlasConfig | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_step: OnStep | None = None,
    state: Mapping[str, Any] | None = None,
) -> AtlasModel:
    """Take a clip apart into atlases of its objects and of the background.

    Kasten et al. (SIGGRAPH Asia 2021, arXiv 2109.11418), section 3. The same seed on one thread of one machine gives the same bits.

    Args:
        clip: in the size that is fitted, 90 px of the shorter side for instance: edits reach frames of any size. motion: of its frames.
        config: ``FAST`` where it is None. seed: of the networks and of the order of pixels. state: what ``AtlasModel.state`` gave in the
            midst of a fit of the same clip with the same settings: the fit goes on from there.

    Raises:
        RecipeError: a value of ``config`` is not legal.
        DataError: the clip, its motion and the state do not belong together, or there is no atlas of it; see ``lay_out``.
    """
    config = config or AtlasConfig()
    config.check()
    layout = lay_out(clip, motion, config.start)
    if state is None:
        model = AtlasModel.begin(layout, config, seed, clip.masks_NTHW, device)
    else:
        model = AtlasModel.from_state(state, device).require(layout, config)
    pixels = Pixels.of(clip, motion, torch.device(device))
    while model.step < config.iterations:
        losses = _take_step(model, pixels)
        if on_step is not None:
            on_step(model, {name: float(loss.detach()) for name, loss in losses.items()})
    return model


def _take_step(model: AtlasModel, pixels: Pixels) -> dict[str, Tensor]:
    config = model.config
    for group in model.optimizer.param_groups:
        group["lr"] = group["highest_lr"] * rate_times(model.step, config)
    patches = pixels.draw(config.num_patches, config.patch_px, model.generator)
    losses = losses_of(model.network, model.layout, config, pixels, patches, model.step / config.iterations)
    counts = weights_at(config, model.step / config.iterations)
    model.optimizer.zero_grad(set_to_none=True)
    torch.stack([counts[name] * loss for name, loss in losses.items()]).sum().backward()
    model.optimizer.step()
    model.step += 1
    return losses


def rate_times(step: int, config: AtlasConfig) -> float:
    """By how much the rates of learning are multiplied: rising linearly, constant, then half a cosine down to the end."""
    if step < config.warmup_iterations:
        return (step + 1) / config.warmup_iterations
    begin = config.constant_share * config.iterations
    along = min(max((step - begin) / max(config.iterations - begin, 1), 0.0), 1.0)
    return config.final_lr_times + (1 - config.final_lr_times) * (1 + math.cos(math.pi * along)) / 2


def weights_at(config: AtlasConfig, share_done: float) -> dict[str, float]:
    """The weight of each loss after that share of the iterations."""
    weights = config.weights
    is_global = share_done < config.global_rigidity_share
    return {
        "rgb": weights.rgb,
        "gradient": weights.gradient,
        "sparsity": weights.sparsity,
        "flow": weights.flow,
        "alpha_flow": weights.alpha_flow,
        "rigidity": weights.rigidity,
        "global_rigidity": weights.global_rigidity if is_global else 0.0,
        "bootstrap": weights.bootstrap if share_done < config.bootstrap_share else weights.mask,
    }


def losses_of(
    network: LayeredAtlases, layout: Layout, config: AtlasConfig, pixels: Pixels, patches: Patches, share_done: float
) -> dict[str, Tensor]:
    """Every loss that counts now, before its weight; those of the paper are told where ``losses`` has them."""
    t, y, x = patches.t_BSS, patches.y_BSS, patches.x_BSS
    seen = network(layout.points(x, y, t).reshape(-1, 3))
    found_P3, true_BSS3 = seen.composed(), pixels.frames_THW3[t, y, x]
    counts = weights_at(config, share_done)
    losses = {
        "rgb": rgb_loss(found_P3, true_BSS3.flatten(0, 2)),
        "gradient": gradient_loss(found_P3.view_as(true_BSS3), true_BSS3),
        "sparsity": sparsity_loss(seen.colors_LP3[:-1], seen.alphas_NP),
        "bootstrap": bootstrap_loss(
            seen.weights_LP, pixels.labels_THW[t, y, x].flatten(), pixels.sure_THW[t, y, x].flatten()
        ),
        "rigidity": _local_rigidity(seen.uv_LP2, layout, t.shape),
    }
    losses |= _along_flow(network, layout, pixels, patches, seen)
    if counts["global_rigidity"]:
        losses["global_rigidity"] = _global_rigidity(network, layout, config, patches, seen)
    return {name: loss for name, loss in losses.items() if counts[name]}


def _local_rigidity(uv_LP2: Tensor, layout: Layout, shape: torch.Size) -> Tensor:
    """Between neighbors within patches, added over layers."""
    uv_LBSS2 = uv_LP2.unflatten(1, shape)
    across = uv_LBSS2.diff(dim=3)[:, :, :-1] * layout.half_px
    down = uv_LBSS2.diff(dim=2)[:, :, :, :-1] * layout.half_px
    return rigidity(across, down).flatten(1).mean(dim=1).sum()


def _global_rigidity(
    network: LayeredAtlases, layout: Layout, config: AtlasConfig, patches: Patches, seen: Seen
) -> Tensor:
    """Between points far apart, added over layers, the background more than once."""
    distance = config.global_rigidity_px
    some = patches.every_second
    here_LP2 = _every_second(seen.uv_LP2, patches)
    beside, below = (
        network.places(layout.points(some.x_BSS + dx, some.y_BSS + dy, some.t_BSS).reshape(-1, 3))
        for dx, dy in ((distance, 0), (0, distance))
    )
    to_units = layout.half_px / distance
    own_L = rigidity((beside - here_LP2) * to_units, (below - here_LP2) * to_units).mean(dim=1)
    return own_L[:-1].sum() + config.weights.background_times * own_L[-1]


def _along_flow(
    network: LayeredAtlases, layout: Layout, pixels: Pixels, patches: Patches, seen: Seen
) -> dict[str, Tensor]:
    """Places and alphas at both ends of flow; places in px."""
    some = patches.every_second
    direction = some.direction_B[:, None, None].expand_as(some.t_BSS)
    flow_BSS2 = pixels.flows_2THW2[direction, some.t_BSS, some.y_BSS, some.x_BSS]
    valid_P = pixels.valid_2THW[direction, some.t_BSS, some.y_BSS, some.x_BSS].flatten()
    ends_P3 = layout.points(
        some.x_BSS + flow_BSS2[..., 0], some.y_BSS + flow_BSS2[..., 1], some.t_BSS + 1 - 2 * direction
    ).reshape(-1, 3)
    here_LP2, weights_LP, alphas_NP = (
        _every_second(values, patches) for values in (seen.uv_LP2, seen.weights_LP, seen.alphas_NP)
    )
    gap = flow_loss(here_LP2, network.places(ends_P3), weights_LP, valid_P) * layout.half_px
    return {"flow": gap, "alpha_flow": alpha_flow_loss(alphas_NP, network.opacities(ends_P3), valid_P)}


def _every_second(values_LP: Tensor, patches: Patches) -> Tensor:
    """Of values at all pixels of patches, (L, P, ...), those at ``patches.every_second``."""
    return values_LP.unflatten(1, patches.t_BSS.shape)[:, :, ::2, ::2].flatten(1, 3)
