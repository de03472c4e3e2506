"""The README.md of an export: what the weights are, what they saw, what is known of them, how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssvid.backbones import Backbone, BackboneInfo

_TORCHVISION = """\
With torchvision alone (nothing is missing but the classifier, `{head}`; normalize the input with this mean and std):

```python
import torch, torchvision
from safetensors.torch import load_file

network = torchvision.models.{builder}(weights=None)
network.load_state_dict(load_file("backbone.safetensors"), strict=False)
{setup}
mean = torch.tensor({mean}).view(3, 1, 1, 1)
std = torch.tensor({std}).view(3, 1, 1, 1)
{vectors}
```
"""
_VECTORS = """\
vectors = network.eval()((clip - mean) / std)  # clip: float in [0, 1], axes (batch, 3, frames, height, width)"""
_VECTORS_PER_FRAME = """\
frames = ((clip - mean) / std).transpose(1, 2)  # clip: float in [0, 1], axes (batch, 3, frames, height, width)
vectors = network.eval()(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)  # mean over the frames"""
_PROGRAM = """\
With torch alone ({dynamic}):

```python
import torch

network = torch.export.load("backbone.pt2").module()
feature_map = network(clip)  # clip: float in [0, 1], axes (batch, 3, frames, height, width)
```
"""
_TEXT = """\
---
# Choose the license of these weights yourself; it is not given by the software that trained them.
# license:
library_name: ssvid
pipeline_tag: feature-extraction
tags:
- video
- self-supervised-learning
- {name}
---

# {title}

{warning}{parameters} parameters. Trained down to stage `{stage}` (a map of {channels} channels, one cell per {stride_time} frames and
{stride_space} x {stride_space} pixels). Made for clips of {num_frames} frames of {size} x {size} pixels; others work too.
The network normalizes its input itself: give it RGB in [0, 1] (mean {mean}, std {std}).

## How to load it

With ssvid:

```python
import ssvid

backbone = ssvid.load_backbone("FOLDER")
vectors = backbone.embed(clip)  # clip: float in [0, 1], axes (batch, 3, frames, height, width)
```

{alone}
## What it was trained on

{trained}

{metrics}What the features are worth for another task is measured by `ssvid probe`, beside the same network with random
weights.

## Identity

Hash of the weights (sha256 over names, shapes and values): `{sha256}`. Software: {versions}.
Options: `{options}`. The recipe stands in `config.json`, the identity of each training video in `content_ids.json`:
the SHA-256 of the file; shorter ones (32 characters) are of its size and ends alone, and different videos may share them.

## License

Not stated. The weights derive from the videos above; who publishes them decides, within the rights to those videos.
"""


def model_card(config: Mapping[str, Any], info: BackboneInfo, *, torchvision: Backbone | None = None) -> str:
    """The text of the card, from ``config.json``. torchvision: the network, if torchvision builds the very same one."""
    provenance = config["provenance"]
    stage = info.stage(config["stage"])
    return _TEXT.format(
        name=info.name,
        title=_title(info.name, provenance),
        warning=_warning(provenance),
        parameters=f"{config['num_parameters']:,}",
        stage=stage.name,
        channels=stage.channels,
        stride_time=stage.stride_time,
        stride_space=stage.stride_space,
        num_frames=info.num_frames,
        size=info.size,
        mean=list(info.mean),
        std=list(info.std),
        alone=_alone(config, info, torchvision),
        trained=_trained(provenance),
        metrics=_metrics(provenance) if provenance["task"] else "",
        sha256=config["weights_sha256"],
        versions=", ".join(f"{k} {v}" for k, v in provenance["versions"].items()) or "not recorded",
        options=dict(info.options),
    )


def _title(name: str, provenance: Mapping[str, Any]) -> str:
    if provenance["task"]:
        return f"{name}, pretrained without labels by {provenance['task']['name']}"
    return f"{name}, weights of {provenance['init']['from']}" if provenance.get("init") else name


def _warning(provenance: Mapping[str, Any]) -> str:
    said = []
    if provenance["placebo"]:
        said.append("**A control, not a product: it was trained on wrong pretext answers (placebo).**\n\n")
    if provenance.get("partial"):
        said.append("**Its training started from weights that filled only a part of it (partial).**\n\n")
    return "".join(said)


def _alone(config: Mapping[str, Any], info: BackboneInfo, torchvision: Backbone | None) -> str:
    if torchvision is not None:
        return _TORCHVISION.format(
            builder=torchvision.torchvision,
            head=torchvision.torchvision_head.rstrip("."),
            setup="\n".join(torchvision.torchvision_setup),
            vectors=_VECTORS_PER_FRAME if torchvision.per_frame else _VECTORS,
            mean=list(info.mean),
            std=list(info.std),
        )
    program = config.get("program")
    if program is None:
        return ""
    least = ", ".join(f"{axis} at least {value}" for axis, value in program["least"].items())
    return _PROGRAM.format(dynamic=f"any batch, length and size: {least}")


def _trained(provenance: Mapping[str, Any]) -> str:
    init = provenance.get("init")
    if not provenance["task"]:
        return _started(init) if init else "Not recorded."
    data, recipe = provenance["data"], provenance["recipe"] or {}
    source = recipe.get("data", {}).get("name")
    lines = [
        f"- videos: {data.get('num_videos', 'not recorded')}" + (f" (reader `{source}`)" if source else ""),
        f"- manifest: `{data.get('manifest_sha256', 'not recorded')}`",
        f"- optimizer steps: {provenance['global_step']}, seed {provenance['seed']}",
    ]
    return "\n".join([*lines, *([_started(init)] if init else [])])


def _started(init: Mapping[str, Any]) -> str:
    """What the weights started from, and what that had seen."""
    seen = "videos or pictures that are not known" if init["unknown_videos"] else f"{init['num_videos']} videos"
    counts = ", ".join(f"{count} {group}" for group, count in init["counts"].items() if count)
    return f"- started from: {init['from']} (hash `{init['sha256'][:12]}`; keys: {counts}), which had seen {seen}"


def _metrics(provenance: Mapping[str, Any]) -> str:
    """The pretext metrics, on held-out videos and, where that was measured, on videos from elsewhere."""
    title = "## How well it solved its pretext task\n\n"
    metrics, elsewhere = provenance["pretext_metrics"], provenance.get("out_of_domain_metrics") or {}
    if not metrics:
        return f"{title}Not measured: the run had no validation videos.\n\n"
    heads = [
        "metric, on held-out videos",
        "value",
        *(["on videos from elsewhere"] if elsewhere else []),
        "a blind guess",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, value in metrics.items():
        cells = [f"{found[name]:.4f}" if name in found else "" for found in (elsewhere, provenance["chance"])]
        cells = [name, f"{value:.4f}", *(cells if elsewhere else cells[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    alone = (
        ""
        if elsewhere
        else " Videos of the same source are solved by shortcuts too: none from elsewhere were measured."
    )
    says = f"This says nothing yet about what the features are worth for another task.{alone}"
    return title + "\n".join(lines) + f"\n\n{says}\n\n"
