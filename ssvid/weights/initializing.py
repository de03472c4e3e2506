"""``init_from``: start a network from weights that lie elsewhere, and say of every key what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ssvid.backbones import Backbone
from ssvid.errors import CheckpointError, name_some
from ssvid.files import takes_paths
from ssvid.types import RGB_CHANNELS
from ssvid.weights.checkpoints import LoadReport, checkpoint_of, match_keys, weights_sha256
from ssvid.weights.choosing import (
    BATCH_COUNTER,
    CLASSIFIERS,
    ForeignWeights,
    Opened,
    choose_network,
    is_inside,
    open_content,
)
from ssvid.weights.foreign import TORCHVISION, read_state_file, read_torchvision
from ssvid.weights.loading import HUB, Source, is_part_of_an_export, read_source, source_of
from ssvid.weights.strangers import load_strangers_dict


class Ways(NamedTuple):
    """How the user of a verb says what its errors advise; "" where it cannot be said there."""

    partial: str = "init_partial=true"
    inflate: str = "init_inflate=true"
    which: str = "init_which="


RECIPE = Ways()
COMMAND_LINE = Ways("--partial", "--inflate", "--which ")
EXPORT_FIRST = Ways("", "", "")


@dataclass(frozen=True)
class InitReport:
    """What a network was started from, key by key. Prints as a table.

    label: what the weights are ("torchvision:r3d_18.KINETICS400_V1", "run", "file weights.pth"), never a path.
    sha256: identity of their weights as they were read. undone: wrappings undone, in words.
    matched: keys filled; inflated: those of them whose 2D kernel was repeated over time. averaged: those whose kernel for
    the colors of pictures was averaged over them for flow. counters: batch counters that
    the file lacks. heads: keys dropped. missing, unexpected, mismatched: keys that make the start partial.
    content_ids: the videos that the weights have seen, as far as they are known. unknown_videos: others were seen too.
    origin: of weights of ours: their task, placebo and own ``init``.
    """

    label: str
    sha256: str
    undone: tuple[str, ...]
    matched: tuple[str, ...]
    inflated: tuple[str, ...]
    averaged: tuple[str, ...]
    counters: tuple[str, ...]
    heads: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    content_ids: tuple[str, ...] = ()
    unknown_videos: bool = True
    origin: Mapping[str, Any] = field(default_factory=dict)

    GROUPS = ("matched", "inflated", "averaged", "counters", "heads", "missing", "unexpected", "mismatched")

    @property
    def fits(self) -> bool:
        """Whether nothing but heads was left over and nothing was left as the seed gives it."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def is_partial(self) -> bool:
        """Whether a part of the network started from the seed, here or in the run that the weights come from."""
        return not self.fits or bool(self.origin.get("partial"))

    def as_dict(self) -> dict[str, Any]:
        """Plain types for checkpoints and results: counts, and names of all but the matched keys."""
        return {
            "from": self.label,
            "sha256": self.sha256,
            "undone": list(self.undone),
            "counts": {group: len(getattr(self, group)) for group in self.GROUPS},
            "keys": {group: list(getattr(self, group)) for group in self.GROUPS if group != "matched"},
            "matched_by_stage": dict(Counter(key.partition(".")[0] for key in self.matched)),
            "partial": self.is_partial,
            "num_videos": None if self.unknown_videos and not self.content_ids else len(self.content_ids),
            "unknown_videos": self.unknown_videos,
            "origin": dict(self.origin),
        }

    def __str__(self) -> str:
        lines = [f"taken from {self.label}, weights {self.sha256[:12]}", *(f"  {text}" for text in self.undone)]
        for group in self.GROUPS:
            keys = getattr(self, group)
            lines.append(f"  {group:<10} {len(keys):>4}  {self._said_of(group, keys)}".rstrip())
        if self.is_partial:
            lines.append("  PARTIAL: what is missing keeps the values of the seed; every result will say so")
        if self.unknown_videos:
            lines.append("  which videos these weights have seen is not known")
        return "\n".join(lines)

    def _said_of(self, group: str, keys: Sequence[str]) -> str:
        if not keys:
            return ""
        if group in ("matched", "inflated", "averaged"):
            return ", ".join(f"{stage} {n}" for stage, n in Counter(k.partition(".")[0] for k in keys).items())
        if group == "counters":
            return "batch counters that the file lacks; they start at 0"
        return name_some(keys, 6) + (" (dropped)" if group == "heads" else "")


@takes_paths("spec")
def initialize(
    backbone: Backbone,
    spec: str | Path | Source | Opened,
    *,
    partial: bool = False,
    inflate: bool = False,
    which: str = "",
    ways: Ways = RECIPE,
) -> InitReport:
    """Fill a network with the weights that ``spec`` names.

    Args:
        spec: a checkpoint, run folder, export or ``hf://owner/name`` of ours; ``torchvision:NAME``; or a file with a
            state dict (.pth, .pt, .safetensors); or what ``open_weights`` gave.
        partial: fill what fits, keep the rest as it is; the report says so.
        inflate: give 2D kernels a time axis, and the first kernel the channels of flow (``backbones.inflation``). Networks
            that are inflated 2D ones do so unasked.
        which: of a file that holds the network several times, a word before the keys of the one that is meant.
        ways: how the user says these three.

    Raises:
        CheckpointError: no such weights, or keys of the network are missing, left over or of another shape; nothing was
            loaded. With ``partial`` only where nothing matches at all.
    """
    weights, ours = _read(spec, backbone, which, ways)
    identity = weights_sha256(weights.state)
    spread, averaged = _averaged(backbone, weights.state, inflate)
    state, inflated = _inflated(backbone, spread, inflate)
    report = _report(backbone, weights, state, (inflated, averaged), identity, ours)
    if not report.matched or not (partial or report.fits):
        raise CheckpointError(_refusal(backbone, report, state, ways._replace(partial="") if partial else ways))
    backbone.load_state_dict({key: state[key] for key in report.matched}, strict=False)
    return report


@takes_paths("spec")
def open_weights(spec: str | Path) -> Source | Opened:
    """What a spec names, read from disk once: a ``Source`` where ssvid wrote it, otherwise what the file holds.

    Raises:
        CheckpointError: as ``initialize``; torchvision's weights are opened for a network (``read_torchvision``).
    """
    path = Path(spec)
    if str(spec).startswith(HUB) or not path.is_file() or is_part_of_an_export(path):
        return read_source(spec)  # which says to name the folder
    if path.suffix == ".safetensors":
        return read_state_file(path)
    content = load_strangers_dict(path)
    return source_of(checkpoint_of(path, content)) if "ssvid" in content else open_content(content, f"file {path.name}")


def _read(
    spec: str | Path | Source | Opened, backbone: Backbone, which: str, ways: Ways
) -> tuple[ForeignWeights, Source | None]:
    """The weights that a spec names, and their Source where ssvid wrote them."""
    if isinstance(spec, str) and spec.startswith(TORCHVISION):
        opened: Source | Opened = read_torchvision(spec.removeprefix(TORCHVISION), backbone)
    else:
        opened = open_weights(spec) if isinstance(spec, str | Path) else spec
    if isinstance(opened, Opened):
        opened, renamed = _under_own_keys(opened, backbone)
        found = choose_network(opened, backbone.state_dict(), which, ways.which)
        return replace(found, undone=(*renamed, *found.undone)), None
    if which:
        raise CheckpointError(
            f"{ways.which}{which} does nothing: {opened.label} of ssvid holds one network. Leave it out."
        )
    return ForeignWeights(opened.label, opened.state), opened


def _under_own_keys(opened: Opened, backbone: Backbone) -> tuple[Opened, tuple[str, ...]]:
    """What a file holds with each of its dicts renamed by the network, and in words what was renamed."""
    renamed = {keys: backbone.rename_public_keys(tensors) for keys, tensors in opened.dicts.items()}
    words = dict.fromkeys(said for _, said in renamed.values() if said)
    return replace(opened, dicts={keys: state for keys, (state, _) in renamed.items()}), tuple(words)


def _inflated(
    backbone: Backbone, state: Mapping[str, Tensor], asked: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state with 2D kernels inflated where the network has 3D ones, and the keys that were."""
    flat = _flat_keys(backbone, state)
    if not flat or not (asked or backbone.inflated_from):
        return dict(state), ()
    from ssvid.backbones.inflation import inflate_weights

    own = backbone.state_dict()
    return dict(state) | inflate_weights({key: state[key] for key in flat}, {key: own[key] for key in flat}), flat


def _averaged(
    backbone: Backbone, state: Mapping[str, Tensor], asked: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state with the kernels for pictures averaged over colors where the network takes flow, and the keys that were."""
    keys = _picture_keys(backbone, state)
    if not keys or not (asked or backbone.inflated_from):
        return dict(state), ()
    from ssvid.backbones.inflation import spread_channels

    channels = backbone.info.in_channels
    return dict(state) | {key: spread_channels(state[key], channels) for key in keys}, keys


def _picture_keys(backbone: Backbone, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Keys under which the file has a kernel for the colors of pictures and the network one for flow, alike otherwise."""
    own, channels = backbone.state_dict(), backbone.info.in_channels
    return tuple(
        key
        for key, value in state.items()
        if channels != RGB_CHANNELS and key in own and value.ndim >= 4 and value.shape[1] == RGB_CHANNELS
        if own[key].shape[:2] == (len(value), channels)
    )


def _flat_keys(backbone: Backbone, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Keys under which the file has a 2D kernel and the network a 3D one of the same size otherwise."""
    own = backbone.state_dict()
    return tuple(
        key
        for key, value in state.items()
        if value.ndim == 4 and key in own and own[key].ndim == 5 and _without_time(own[key]) == tuple(value.shape)
    )


def _without_time(kernel: Tensor) -> tuple[int, ...]:
    return (*kernel.shape[:2], *kernel.shape[3:])


def _report(
    backbone: Backbone,
    weights: ForeignWeights,
    state: Mapping[str, Tensor],
    inflated_averaged: tuple[tuple[str, ...], tuple[str, ...]],
    identity: str,
    source: Source | None,
) -> InitReport:
    met: LoadReport = match_keys(backbone.state_dict(), state)
    counters = tuple(key for key in met.missing if key.endswith(BATCH_COUNTER))
    is_whole = len(counters) == len(met.missing) and not met.mismatched
    heads = tuple(key for key in met.unexpected if source is None and _is_head(key, backbone, is_whole))
    return InitReport(
        label=weights.label,
        sha256=identity,
        undone=weights.undone,
        matched=met.matched,
        inflated=inflated_averaged[0],
        averaged=inflated_averaged[1],
        counters=counters,
        heads=heads,
        missing=tuple(key for key in met.missing if key not in counters),
        unexpected=tuple(key for key in met.unexpected if key not in heads),
        mismatched=met.mismatched,
        **_past(source),
    )


def _past(source: Source | None) -> dict[str, Any]:
    if source is None:
        return {}
    known = source.provenance
    return {
        "content_ids": tuple(known.content_ids or ()),
        "unknown_videos": known.content_ids is None or bool(known.init and known.init.get("unknown_videos")),
        "origin": known.to_origin(),
    }


def _is_head(key: str, backbone: Backbone, is_whole: bool) -> bool:
    """Whether a key that the network lacks is no part of it: a classifier, or anything beside a network that is whole."""
    classifier = backbone.torchvision_head
    if (classifier and key.startswith(classifier)) or key.partition(".")[0] in CLASSIFIERS:
        return True
    return is_whole and not is_inside(key, backbone.state_dict())


def _refusal(backbone: Backbone, report: InitReport, state: Mapping[str, Tensor], ways: Ways) -> str:
    flat = _flat_keys(backbone, state)
    advice = ["Name the backbone and the options that they were trained with"]
    if flat and not report.inflated and ways.inflate:
        advice.append(f"give its {len(flat)} 2D kernels a time axis with {ways.inflate}")
    if ways.inflate and not report.averaged and (colored := _picture_keys(backbone, state)):
        advice.append(f"average its kernel for pictures ({colored[0]}) over the colors, for flow, with {ways.inflate}")
    if report.matched and ways.partial:
        advice.append(f"accept what fits with {ways.partial} (every later result says so)")
    groups = (f"{len(getattr(report, g))} {g}" for g in ("matched", "missing", "unexpected", "mismatched"))
    lines = [f"the weights of {report.label} do not fit backbone {backbone.info.name}: {', '.join(groups)}."]
    for group in ("missing", "unexpected", "mismatched"):
        keys = getattr(report, group)
        if keys:
            lines.append(f"{group.capitalize()}: {name_some(keys, 6)}.")
    return " ".join([*lines, ", or ".join(advice) + "."])
