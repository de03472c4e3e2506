"""The README.md of an export: what the weights are, what they saw, what is known of them, how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssvid.backbones import BackboneInfo

_TORCHVISION = """\
With torchvision alone (nothing is missing but the classifier `fc`; input normalized with the mean and std below):

```python
import torch, torchvision
from safetensors.torch import load_file

network = torchvision.models.{builder}(weights=None)
network.load_state_dict(load_file("backbone.safetensors"), strict=False)
network.fc = torch.nn.Identity()
mean = torch.tensor({mean}).view(3, 1, 1, 1)
std = torch.tensor({std}).view(3, 1, 1, 1)
vectors = network.eval()((clip - mean) / std)  # clip: float in [0, 1], axes (batch, 3, frames, height, width)
```
"""
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

# {name}, pretrained without labels{task}

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

## How well it solved its pretext task

{metrics}

This says nothing yet about what the features are worth for another task: `ssvid probe` measures that, beside the same
network with random weights.

## Identity

Hash of the weights (sha256 over names, shapes and values): `{sha256}`. Software: {versions}.
Options: `{options}`. The recipe stands in `config.json`, the identity of each training video in `content_ids.json`.

## License

Not stated. The weights derive from the videos above; whoever publishes them decides, within the rights to those videos.
"""


def model_card(config: Mapping[str, Any], info: BackboneInfo, *, torchvision: str | None = None) -> str:
    """The text of the card, from ``config.json``. torchvision: name of its builder for this network, if it has one."""
    provenance = config["provenance"]
    stage = info.stage(config["stage"])
    task = provenance["task"]
    return _TEXT.format(
        name=info.name,
        task=f" by {task['name']}" if task else "",
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
        metrics=_metrics(provenance["pretext_metrics"], provenance["chance"]),
        sha256=config["weights_sha256"],
        versions=", ".join(f"{k} {v}" for k, v in provenance["versions"].items()) or "not recorded",
        options=dict(info.options),
    )


def _warning(provenance: Mapping[str, Any]) -> str:
    if provenance["placebo"]:
        return "**A control, not a product: it was trained with its pretext targets permuted (placebo).**\n\n"
    return ""


def _alone(config: Mapping[str, Any], info: BackboneInfo, builder: str | None) -> str:
    if builder is not None:
        return _TORCHVISION.format(builder=builder, mean=list(info.mean), std=list(info.std))
    program = config.get("program")
    if program is None:
        return ""
    least = ", ".join(f"{axis} at least {value}" for axis, value in program["least"].items())
    return _PROGRAM.format(dynamic=f"any batch, length and size: {least}")


def _trained(provenance: Mapping[str, Any]) -> str:
    data, recipe = provenance["data"], provenance["recipe"] or {}
    source = recipe.get("data", {}).get("name")
    lines = [
        f"- videos: {data.get('num_videos', 'not recorded')}" + (f" (reader `{source}`)" if source else ""),
        f"- manifest: `{data.get('manifest_sha256', 'not recorded')}`",
        f"- optimizer steps: {provenance['global_step']}, seed {provenance['seed']}",
    ]
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, float], chance: Mapping[str, float]) -> str:
    if not metrics:
        return "Not measured: the run had no validation videos."
    lines = ["| metric, on held-out videos | value | a blind guess |", "|---|---|---|"]
    for name, value in metrics.items():
        lines.append(
            f"| {name} | {value:.4f} | {chance[name]:.4f} |" if name in chance else f"| {name} | {value:.4f} | |"
        )
    return "\n".join(lines)
