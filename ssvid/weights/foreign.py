"""Weights that ssvid did not write: torchvision's, or a state dict in a file. Every wrapping undone is named."""

from __future__ import annotations

import operator
import pickle
from pathlib import Path
from typing import Any

from torch import Tensor

from ssvid.backbones import Backbone
from ssvid.errors import CheckpointError, did_you_mean
from ssvid.weights.choosing import Opened, open_content

TORCHVISION = "torchvision:"


def read_state_file(path: Path) -> Opened:
    """What a .safetensors file holds.

    Raises:
        CheckpointError: damaged.
    """
    return open_content(_read_safetensors(path), f"file {path.name}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it is missing or damaged ({error}). Download it again."
        ) from error


def read_torchvision(name: str, backbone: Backbone) -> Opened:
    """Weights of torchvision's builder for this network, from torch.hub's cache or, where they are not there, its server.

    Args:
        name: member of the builder's weights enum, such as KINETICS400_V1, IMAGENET1K_V1 or DEFAULT.

    Raises:
        CheckpointError: torchvision has no such network or weights, or they can neither be found nor downloaded.
    """
    builder = torchvision_weights_builder(backbone)
    if not builder:
        raise CheckpointError(
            f"torchvision has no network like {backbone.info.name!r}, so that {TORCHVISION}{name} names nothing. "
            "Choose another backbone, or name a checkpoint, an export or a file of weights."
        )
    import torchvision

    known = torchvision.models.get_model_weights(operator.attrgetter(builder)(torchvision.models)).__members__
    if name not in known:
        raise CheckpointError(f"torchvision's {builder} has no weights {name!r}. {did_you_mean(name, known)}")
    member = known[name]
    return open_content(_download(member), f"{TORCHVISION}{builder.rpartition('.')[2]}.{member.name}")


def torchvision_weights_builder(backbone: Backbone) -> str:
    """torchvision's builder whose weights this network takes: its own, or that of the 2D network it was inflated from."""
    return backbone.torchvision or backbone.inflated_from


def _download(member: Any) -> dict[str, Tensor]:
    import torch

    file = f"{torch.hub.get_dir()}/checkpoints/{member.url.rpartition('/')[2]}"
    try:
        return dict(member.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True))
    except OSError as error:  # URLError, timeouts and a full disk alike
        raise CheckpointError(
            f"the weights {member} are not in torch.hub's cache, and downloading them failed ({error}). Connect to the "
            f"network, or fetch {member.url} elsewhere and put it at {file}."
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a wrong hash, or a file that is cut short
        raise CheckpointError(
            f"the weights {member} are damaged ({' '.join(str(error).split())[:200]}). Remove {file} and try again."
        ) from error
