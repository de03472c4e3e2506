"""The fit of an Omnimatte to one video."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvid.errors import DataError
from ssvid.layers.background import CameraCanvas
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import ClipMotion
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.inputs import FitInputs, fit_inputs, sampled
from ssvid.layers.omnimatte.losses import MaskSchedule, alpha_l0, alpha_l1, mask_loss, over, rgb_loss
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.layers.omnimatte.network import LayerNet

# Called after every step with the model as it is and the losses of the step, before their weights.
OnStep = Callable[[OmnimatteModel, Mapping[str, float]], object]


def fit_omnimatte(
    clip: LayerClip,
    motion: ClipMotion,
    config: OmnimatteConfig | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_step: OnStep | None = None,
    state: Mapping[str, Any] | None = None,
    camera: CameraCanvas | None = None,
) -> OmnimatteModel:
    """Take a video apart into a background and a layer for each object, with the effects that move as the object does.

    Lu et al. (CVPR 2021): what a small network learns first is what follows from its input, so that a shadow ends in the layer of the object
    that it moves with. Same clip, settings and seed, one thread: the same model, bit for bit, stopped and resumed or not.
    Differs: the background starts from the median of what is seen of it, not from nothing.

    Args:
        clip: at the size of the fit, see ``fit_size``. motion: of its frames. seed: of the network, the noise and the order of frames.
        on_step: called after each step. state: ``OmnimatteModel.state()`` of a fit of the same clip, settings and seed, to go on from; of one
            that has ended, the model is back at once. camera: what ``camera_canvas`` found of this clip with the settings' ``camera`` and
            ``grown_px``, where it is known; None looks for it.

    Raises:
        DataError: there is one frame only, the camera was lost, nothing is seen of the background, or the state is of another fit.
    """
    if clip.num_frames < 2:
        raise DataError(
            f"the clip has {clip.num_frames} frame; layers are told apart by how they move, so there must be at least 2. Take more frames."
        )
    config = config or OmnimatteConfig()
    fit = _Fit(clip, fit_inputs(clip, motion, config, seed, camera), config, seed, device)
    if state is not None:
        fit.load(state)
    while fit.model.step < config.iterations:
        fit.step()
        if on_step is not None:
            on_step(fit.model, fit.model.losses)
    return fit.model


class _Fit:
    """A fit under way."""

    def __init__(self, clip: LayerClip, inputs: FitInputs, config: OmnimatteConfig, seed: int, device: str) -> None:
        self.config, self.seed = config, seed
        self.frames_TCHW, self.inputs_NTCHW, self.trimaps_NTHW, self.grids_THW2 = (
            part.to(device)
            for part in (inputs.frames_TCHW, inputs.inputs_NTCHW, inputs.trimaps_NTHW, inputs.grids_THW2)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = LayerNet(self.inputs_NTCHW.shape[2], config.width).to(device)
        network = network.to(memory_format=torch.channels_last)  # a third faster on a processor
        start_1CHW = torch.from_numpy(inputs.start_HWC).permute(2, 0, 1)[None].float() / 255
        canvas_1CHW = start_1CHW.to(device).requires_grad_()
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(network.parameters()), "highest_lr": config.learning_rate},
                {"params": [canvas_1CHW], "highest_lr": config.canvas_learning_rate},
            ]
        )
        self.schedule = MaskSchedule(config.mask_weight, config.mask_target)
        self.identity = _identity(clip, config, seed)
        self.model = OmnimatteModel(clip, inputs, config, network, canvas_1CHW, self._state)

    def step(self) -> None:
        """One step of the optimizer."""
        model, step = self.model, self.model.step
        model.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest_lr"] * rate_times(step, self.config)
        frames_B = self._batch(step)
        inputs_MCHW = self.inputs_NTCHW[:, frames_B].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        found_NB4HW = model.network(inputs_MCHW).unflatten(0, (-1, len(frames_B)))
        behind_BCHW = sampled(model.canvas_1CHW, self.grids_THW2[frames_B])
        losses = self._losses(found_NB4HW, behind_BCHW, frames_B)
        weights = self._weights(step)
        total = sum((weight * losses[name] for name, weight in weights.items() if weight), torch.zeros(()))
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            model.canvas_1CHW.clamp_(0, 1)
        model.losses = {name: float(loss.detach()) for name, loss in losses.items()}
        self.schedule = self.schedule.after(step, model.losses["mask"])
        model.step = step + 1

    def _batch(self, step: int) -> Tensor:
        """The frames of a step, drawn by its number."""
        num_frames = len(self.frames_TCHW)
        drawn = np.random.default_rng([self.seed, 1, step]).permutation(num_frames)[: self.config.batch_frames]
        return torch.from_numpy(np.sort(drawn)).to(self.frames_TCHW.device)

    def _losses(self, found_NB4HW: Tensor, behind_BCHW: Tensor, frames_B: Tensor) -> dict[str, Tensor]:
        alphas_NBHW = found_NB4HW[:, :, 3]
        return {
            "rgb": rgb_loss(over(behind_BCHW, found_NB4HW), self.frames_TCHW[frames_B]),
            "mask": mask_loss(alphas_NBHW, self.trimaps_NTHW[:, frames_B]),
            "alpha_l1": alpha_l1(alphas_NBHW),
            "alpha_l0": alpha_l0(alphas_NBHW),
        }

    def _weights(self, step: int) -> dict[str, float]:
        sparse = step < self.config.alpha_l1_share * self.config.iterations
        return {
            "rgb": 1.0,
            "mask": self.schedule.at(step),
            "alpha_l1": self.config.alpha_l1_weight if sparse else 0.0,
            "alpha_l0": self.config.alpha_l0_weight,
        }

    def _state(self) -> dict[str, Any]:
        """A copy of all that changes, as tensors and plain types."""
        return {
            "step": self.model.step,
            "identity": self.identity,
            "network": {name: value.detach().clone() for name, value in self.model.network.state_dict().items()},
            "canvas": self.model.canvas_1CHW.detach().clone(),
            "optimizer": _copied(self.optimizer.state_dict()),
            "reached_step": self.schedule.reached_step,
            "losses": dict(self.model.losses),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if state["identity"] != self.identity:
            raise DataError(
                "the fit that should go on was of other frames, masks, settings or another seed. Give the same again, or begin anew."
            )
        self.model.network.load_state_dict(state["network"])
        with torch.no_grad():
            self.model.canvas_1CHW.copy_(state["canvas"])
        self.optimizer.load_state_dict(_copied(state["optimizer"]))
        self.schedule = MaskSchedule(self.schedule.weight, self.schedule.target, state["reached_step"])
        self.model.losses, self.model.step = dict(state["losses"]), int(state["step"])


def rate_times(step: int, config: OmnimatteConfig) -> float:
    """By how much the rates of learning are multiplied: 1, then half a cosine down to the end."""
    begin = config.constant_share * config.iterations
    along = max(0.0, (step - begin) / max(config.iterations - begin, 1))
    return config.final_rate_times + (1 - config.final_rate_times) * (1 + math.cos(math.pi * along)) / 2


def _identity(clip: LayerClip, config: OmnimatteConfig, seed: int) -> str:
    """Known by it: what is fitted, and how."""
    told = hashlib.sha256(repr((clip.frames_THWC.shape, clip.names, config, seed)).encode())
    for array in (clip.frames_THWC, clip.masks_NTHW):
        told.update(np.ascontiguousarray(array).data)
    return told.hexdigest()


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
