"""Write a backbone so that others can load it, without ssvid too: see the model card that lies beside the weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo, create_backbone, initialize_backbone, list_backbones
from ssvid.data.config import DataConfig
from ssvid.errors import CheckpointError, SsvidError, did_you_mean
from ssvid.exports.model_card import model_card
from ssvid.files import folder_appearing_whole, takes_paths, telling_full_disk, write_atomic, write_json, write_text
from ssvid.types import RGB_CHANNELS
from ssvid.weights.checkpoints import LoadReport, check_fit, load_backbone_weights, weights_sha256
from ssvid.weights.foreign import TORCHVISION
from ssvid.weights.hub import HUB
from ssvid.weights.initializing import COMMAND_LINE, InitReport, initialize, open_weights
from ssvid.weights.loading import CONFIG, CONTENT_IDS, EXPORT_FORMAT, EXPORT_KIND, WEIGHTS, Source, outline, read_source
from ssvid.weights.provenance import Provenance

FORMATS = ("ssvid", "torchvision", "onnx")
CARD, PROGRAM = "README.md", "backbone.pt2"
PROGRAM_TOLERANCE = 1e-5


@dataclass(frozen=True)
class ExportReport:
    """What was written. Prints as a few lines.

    files: paths. weights: how the keys met those of the network that will take them. notes: what the next user must know.
    """

    out: Path
    format: str
    files: tuple[Path, ...]
    weights: LoadReport
    weights_sha256: str
    notes: tuple[str, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        counts = {key: len(keys) for key, keys in asdict(self.weights).items()}
        return {
            "out": str(self.out),
            "format": self.format,
            "files": [str(path) for path in self.files],
            "weights": counts,
            "weights_sha256": self.weights_sha256,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        sizes = [f"  {path}  {path.stat().st_size / 1e6:.2f} MB" for path in self.files]
        return "\n".join([f"exported to {self.out}: {self.weights}", *sizes, *self.notes])


@takes_paths("checkpoint", "out")
def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    format: str = "ssvid",
    backbone_name: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    which: str = "",
    inflate: bool = False,
    partial: bool = False,
    program: bool = True,
) -> ExportReport:
    """Write the backbone of a checkpoint, run folder or export so that others can load it.

    Args:
        checkpoint: a checkpoint, a run folder or another export; or, with ``backbone_name``, weights of another program:
            ``torchvision:NAME`` or a .pth, .pt or .safetensors state dict.
        backbone_name, backbone_options: the network that weights of another program are of; ours say it themselves.
        which, inflate, partial: how weights of another program are taken, as for ``init_from`` (``initialize``).
        program: whether a folder gets ``backbone.pt2`` where torchvision has no such network; it takes seconds.
        out: what to write; it must not exist. Format ``ssvid``: a folder. Format ``torchvision``: a file that ends in
            .pth or .safetensors, for ``torchvision.models.video.r3d_18().load_state_dict(..., strict=False)``. Format
            ``onnx``: a file that ends in .onnx, which takes clips in [0, 1] and gives the map and its mean.

    Raises:
        CheckpointError: the checkpoint cannot be used, or ``out`` exists.
        SsvidError: no such format, or torchvision has no such network.
    """
    if format not in FORMATS:
        raise SsvidError(f"export format ({format!r}) is unknown. {did_you_mean(format, FORMATS)}")
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"{out} exists, and an export never overwrites. Choose another name, or move it away.")
    if backbone_name is None:
        if which or inflate or partial:
            raise CheckpointError(
                "--which, --inflate and --partial are for weights of another program. Set --backbone-name."
            )
        source, notes = read_source(checkpoint), tuple[str, ...]()
    else:
        source, report = _foreign_source(checkpoint, backbone_name, backbone_options, which, inflate, partial)
        notes = (str(report),)
    written = _export_as(format, source, out, program)
    return replace(written, notes=(*written.notes, *notes))


def _export_as(format: str, source: Source, out: Path, program: bool) -> ExportReport:
    if format == "onnx":
        return _export_onnx(source, out)
    return _export_torchvision(source, out) if format == "torchvision" else _export_folder(source, out, program)


def _foreign_source(
    checkpoint: str | Path, name: str, options: Mapping[str, Any] | None, which: str, inflate: bool, partial: bool
) -> tuple[Source, InitReport]:
    """Weights of another program in the network that is named, and what became of each of their keys."""
    found = checkpoint if str(checkpoint).startswith(TORCHVISION) else open_weights(checkpoint)
    if isinstance(found, Source):
        raise CheckpointError(
            f"{checkpoint} is no torchvision:NAME and no file of another program's weights; weights of ssvid say themselves "
            "which network they are of. Leave --backbone-name out, or fix the path."
        )
    backbone = initialize_backbone(name, options)
    report = initialize(backbone, found, which=which, inflate=inflate, partial=partial, ways=COMMAND_LINE)
    network = {"name": name, "options": dict(backbone.info.options)}
    known = Provenance(backbone=network, partial=report.is_partial, init=report.as_dict())
    return Source(Path("weights"), known, dict(backbone.state_dict()), backbone.info, report.label), report


def _filled(source: Source) -> tuple[Backbone, LoadReport]:
    """The network with the weights of a source; whether they fit is known before memory is taken for it."""
    check_fit(outline(source.name, source.options), source.state)
    backbone = create_backbone(source.name, **source.options).eval()
    return backbone, load_backbone_weights(backbone, source.state)


def _export_folder(source: Source, out: Path, program: bool) -> ExportReport:
    backbone, report = _filled(source)
    with folder_appearing_whole(out) as folder:
        notes = _fill_folder(folder, source, backbone, program)
    files = tuple(sorted(out.iterdir()))
    return ExportReport(out, "ssvid", files, report, weights_sha256(source.state), notes)


def _fill_folder(folder: Path, source: Source, backbone: Backbone, program: bool) -> tuple[str, ...]:
    _write_state(folder / WEIGHTS, _contiguous(source.state))
    config = _config(source, backbone.info)
    notes: tuple[str, ...] = ()
    same = _is_torchvisions(backbone)
    if program and not same:
        config["program"], notes = _write_program(folder / PROGRAM, backbone, config["stage"])
    write_json(folder / CONFIG, config)
    if source.provenance.content_ids is not None:
        write_json(folder / CONTENT_IDS, list(source.provenance.content_ids))
    write_text(folder / CARD, model_card(config, backbone.info, torchvision=backbone if same else None))
    return notes


def _is_torchvisions(backbone: Backbone) -> bool:
    """Whether torchvision builds the very same network; with other strides its maps would be others."""
    return bool(backbone.torchvision) and backbone.info.options == outline(backbone.info.name).info.options


def _without_paths(recipe: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The recipe as others may see it: an export is made to be handed on, and paths name people and machines."""
    if recipe is None:
        return None
    shown = dict(recipe) | {"data": _hidden(DataConfig, recipe.get("data", {}))}
    start = str(shown.get("init_from") or "")
    return shown | ({} if not start or start.startswith((TORCHVISION, HUB)) else {"init_from": "???"})


def _hidden(schema: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a group with its paths, and those of the groups in it, as ``???``."""
    shown = dict(values)
    for option in fields(schema):
        value = shown.get(option.name)
        if option.metadata.get("is_path") and value:
            shown[option.name] = "???"
        elif isinstance(value, Mapping) and is_dataclass(option.default_factory):
            shown[option.name] = _hidden(cast(type, option.default_factory), value)
    return shown


def _config(source: Source, info: BackboneInfo) -> dict[str, Any]:
    known = source.provenance
    return {
        "kind": EXPORT_KIND,
        "format": EXPORT_FORMAT,
        "backbone": {"name": source.name, "options": dict(info.options)},
        "info": info.to_dict(),
        "stage": info.stage(known.stage).name,
        "weights_sha256": weights_sha256(source.state),
        "num_parameters": sum(
            v.numel() for k, v in source.state.items() if v.is_floating_point() and "running_" not in k
        ),
        "provenance": known.to_export() | {"recipe": _without_paths(known.recipe)},
    }


class _StageMap(nn.Module):
    """A backbone as a function of the clip alone: the map of one stage."""

    def __init__(self, backbone: Backbone, stage: str) -> None:
        super().__init__()
        self.backbone, self.stage = backbone, stage

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        return self.backbone(clip_BCTHW, self.stage)


def _write_program(path: Path, backbone: Backbone, stage: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Write ``backbone.pt2`` through torch.export and compare it; what is dynamic in it, and notes.

    A network that torch.export cannot take is exported without it: the note says why.
    """
    info = backbone.info
    where = info.stage(stage)
    # Two cells of the map: torch.export tells maps of one cell from larger ones, and the program is for the larger.
    frames, pixels = (
        where.stride_time + (1 if info.full_maps else info.min_frames),
        where.stride_space + (1 if info.full_maps else info.min_px),
    )
    least = {"B": 1, "T": max(info.min_frames, frames), "H": max(info.min_px, pixels)}
    least["W"] = least["H"]
    # As small as the axes allow: the program is the same for any size.
    sizes = {axis: 2 * least[axis] for axis in "THW"}
    # Not named dimensions: those refuse a network that rounds up, whose sizes fulfill inequalities that torch cannot prove.
    axes = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.DYNAMIC)
    if info.max_frames == info.min_frames:  # clips of one length, which the program then holds
        least["T"] = sizes["T"] = info.min_frames
        axes[2] = torch.export.Dim.STATIC
    clip = torch.rand(2, info.in_channels, *sizes.values())
    try:
        program = torch.export.export(_StageMap(backbone, stage), (clip,), dynamic_shapes={"clip_BCTHW": axes})
    except Exception as error:  # torch.export fails in many ways on networks that are not ours; the rest is whole
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return None, (
            f"{PROGRAM} was not written: torch.export cannot take {info.name} ({type(error).__name__}: {first}).",
        )
    _forget_source_files(program)
    with telling_full_disk(path):
        torch.export.save(program, path)
    again, smallest = (
        torch.export.load(path).module(),
        torch.rand(1, info.in_channels, *(least[axis] for axis in "THW")),
    )
    with torch.no_grad():
        error_max = max((again(x) - backbone(x, stage)).abs().max().item() for x in (clip, smallest))
    if not error_max <= PROGRAM_TOLERANCE:
        raise SsvidError(f"{PROGRAM} differs from the backbone by {error_max:.1e}, more than {PROGRAM_TOLERANCE:.0e}.")
    return {"file": PROGRAM, "input": "clip_BCTHW", "output": f"map BCTHW of {stage}", "least": least}, ()


def _forget_source_files(program: torch.export.ExportedProgram) -> None:
    """Each operation remembers the files and lines that called it: paths of the machine that made the export."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _export_onnx(source: Source, out: Path) -> ExportReport:
    from ssvid.exports.onnx_file import write_onnx

    backbone, report = _filled(source)
    config = _config(source, backbone.info)
    notes = write_onnx(out, backbone, config["stage"], weights_sha256=config["weights_sha256"])
    return ExportReport(out, "onnx", (out,), report, config["weights_sha256"], notes)


def _export_torchvision(source: Source, out: Path) -> ExportReport:
    ours = outline(source.name, source.options)
    if ours.info.in_channels != RGB_CHANNELS:
        raise SsvidError(
            f"{source.name} was trained on clips of {ours.info.in_channels} channels, and torchvision's networks take"
            f" {RGB_CHANNELS}. Export the folder: ssvid export CHECKPOINT FOLDER."
        )
    if not ours.torchvision:
        known = [name for name in list_backbones() if outline(name).torchvision]
        raise SsvidError(
            f"torchvision has no network like {source.name!r} (it has {', '.join(known)}). "
            f"Use --format ssvid: its {PROGRAM} loads with torch alone."
        )
    if out.suffix not in (".pth", ".safetensors"):
        raise SsvidError(f"format torchvision writes one file, and {out} must end in .pth or .safetensors. Rename it.")
    check_fit(ours, source.state)
    import torchvision

    network = operator.attrgetter(ours.torchvision)(torchvision.models)(weights=None)
    state = _contiguous(source.state)
    result = network.load_state_dict(state, strict=False)
    report = LoadReport(
        tuple(k for k in state if k not in result.unexpected_keys),
        tuple(result.missing_keys),
        tuple(result.unexpected_keys),
        (),
    )
    if report.unexpected or any(not key.startswith(ours.torchvision_head) for key in report.missing):
        raise CheckpointError(f"the weights do not fit torchvision's {ours.torchvision}: {report}.")
    _write_state(out, state)
    return ExportReport(out, "torchvision", (out,), report, weights_sha256(state), _torchvision_notes(ours.info))


def _torchvision_notes(info: BackboneInfo) -> tuple[str, ...]:
    usual = outline(info.name).info
    notes = [f"normalize its input yourself: mean {list(info.mean)}, std {list(info.std)} of pixels in [0, 1]."]
    if info.options != usual.options:
        notes.append(
            f"it was trained with {dict(info.options)}; torchvision's class has {dict(usual.options)}, so that its maps "
            "are coarser and other than those of the training."
        )
    return tuple(notes)


def _write_state(out: Path, state: dict[str, Tensor]) -> None:
    if out.suffix == ".pth":
        write_atomic(out, lambda file: torch.save(state, file))
        return
    from safetensors.torch import save  # save_file writes files that only their owner may read, whatever the umask

    write_atomic(out, lambda file: file.write(save(state, metadata={"format": "pt"})))


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Row-major copies: training in channels-last leaves strides that other readers do not expect."""
    return {key: value.detach().contiguous() for key, value in state.items()}
