"""Weights that ssvid did not write: torchvision's, or a state dict in a file. Every wrapping undone is named."""

from __future__ import annotations

import operator
import pickle
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssvid.backbones import Backbone
from ssvid.checkpoints import load_checkpoint_dict
from ssvid.errors import CheckpointError, did_you_mean

TORCHVISION = "torchvision:"
# What other programs put before the keys of a network. A prefix made of other words is named, not cut.
KNOWN_PREFIXES = ("module", "_orig_mod", "model", "network", "net", "backbone", "encoder", "encoder_q", "trunk")


@dataclass(frozen=True)
class ForeignWeights:
    """A state dict of another program.

    label: what it is, never a path. undone: the wrappings that were undone, in words and in order.
    """

    label: str
    state: dict[str, Tensor]
    undone: tuple[str, ...] = ()


def read_state_file(path: Path) -> ForeignWeights:
    """The one state dict in a .pth, .pt or .safetensors file, without running any code that the file may hold.

    Raises:
        CheckpointError: damaged, no tensors, or several state dicts among which only the user can choose.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else load_checkpoint_dict(path)
    return open_container(content, path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it is missing or damaged ({error}). Download it again."
        ) from error


def open_container(content: Mapping[str, Any], path: Path) -> ForeignWeights:
    """The tensors of a file, which lie bare or under the only key that holds a dict of tensors."""
    held = [key for key, value in content.items() if _is_state(value)]
    bare = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    label = f"file {path.name}"
    if len(held) > 1:
        raise CheckpointError(
            f"{path} holds {len(held)} sets of weights, under the keys {', '.join(map(repr, held))}; which one is meant "
            f"cannot be known. Save the one you want: torch.save(torch.load({path.name!r}, weights_only=True)[{held[0]!r}], "
            "'weights.pth')."
        )
    if held and not bare:
        left = ", ".join(str(key) for key in content if key != held[0])
        return ForeignWeights(label, dict(content[held[0]]), (f"took key {held[0]!r}{left and f', left {left}'}",))
    if not bare:
        keys = ", ".join(map(repr, list(content)[:4])) or "nothing"
        raise CheckpointError(f"{path} holds no weights: no tensor lies in it or one key below (it has {keys}).")
    others = [str(key) for key in content if key not in bare]
    return ForeignWeights(label, bare, (f"left {', '.join(others)}",) if others else ())


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def cut_prefix(weights: ForeignWeights, own: Collection[str]) -> ForeignWeights:
    """The same weights without what stands before the network's keys (``module.``, ``model.backbone.``, ...).

    Keys that do not have the prefix keep their names, so that they are reported. own: the keys of the network.

    Raises:
        CheckpointError: two parts of the file have the network's keys, or the prefix is of words that are not known.
    """
    found = _prefixes(weights.state, own)
    if not found or found.most_common(1)[0][0] == "":
        return weights
    (prefix, most), *others = found.most_common()
    rivals = [other for other, count in others if 2 * count >= most]
    if rivals:
        raise CheckpointError(
            f"{weights.label} holds the network {1 + len(rivals)} times, under the prefixes "
            f"{', '.join(map(repr, [prefix, *rivals]))}; which one is meant cannot be known. Save a file with the one you "
            "want, without its prefix."
        )
    unknown = [word for word in prefix.rstrip(".").split(".") if word not in KNOWN_PREFIXES]
    if unknown:
        raise CheckpointError(
            f"{weights.label} has the network's keys under the prefix {prefix!r}, and {unknown[0]!r} is not a usual "
            f"wrapping ({', '.join(KNOWN_PREFIXES)}). If it is the network that you mean, save a file without the prefix."
        )
    state = {key.removeprefix(prefix): value for key, value in weights.state.items()}
    if len(state) != len(weights.state):
        raise CheckpointError(
            f"{weights.label} has keys with and without the prefix {prefix!r} that clash when it is cut."
        )
    count = sum(key.startswith(prefix) for key in weights.state)
    return ForeignWeights(weights.label, state, (*weights.undone, f"cut prefix {prefix!r} from {count} keys"))


def _prefixes(state: Mapping[str, Tensor], own: Collection[str]) -> Counter[str]:
    """What stands before the network's keys -> how many keys it stands before."""
    own = set(own)
    found: Counter[str] = Counter()
    for key in state:
        words = key.split(".")
        for cut in range(len(words)):
            if ".".join(words[cut:]) in own:
                found[".".join([*words[:cut], ""]) if cut else ""] += 1
                break  # the longest of its endings that is a key
    return found


def read_torchvision(name: str, backbone: Backbone) -> ForeignWeights:
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
    return ForeignWeights(f"{TORCHVISION}{builder.rpartition('.')[2]}.{member.name}", _download(member))


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
