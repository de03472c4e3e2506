"""The only file that knows state-dict prefixes and format versions.

A checkpoint is Lightning's dict; its ``state_dict`` has the prefixes ``backbone.`` and ``task.`` and no other, and its key
``ssvid`` holds plain types: what was trained, on what, how far. Everything loads with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ssvid.backbones import Backbone
from ssvid.errors import CheckpointError
from ssvid.files import write_atomic
from ssvid.weights.provenance import FORMAT, Provenance

BACKBONE_PREFIX, TASK_PREFIX = "backbone.", "task."
# torch's words for a class or function that ``weights_only`` does not let in.
UNKNOWN_CLASS = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed global")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds for everything but the trainer: its meta data, and the weights without their prefixes.

    backbone_state is of the network that was trained; exported_state of the one to evaluate, which can be the task's teacher.
    """

    path: Path
    meta: dict[str, Any]
    backbone_state: dict[str, Tensor]
    task_state: dict[str, Tensor]

    @property
    def provenance(self) -> Provenance:
        """The meta data as what is known of the weights."""
        return Provenance.from_dict(self.meta)

    @property
    def exported_state(self) -> dict[str, Tensor]:
        """The weights that are exported, evaluated and started from: those of ``PretextTask.exported``, where the task names one."""
        return (
            _below(self.task_state, f"{self.meta['exported']}.") if self.meta.get("exported") else self.backbone_state
        )


@dataclass(frozen=True)
class LoadReport:
    """How the keys of a state dict met those of a network."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every key met its like."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        counts = [f"{len(self.matched)} keys matched"]
        for name in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, name)
            shown = f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
            counts.append(f"{len(keys)} {name}{shown}")
        return ", ".join(counts)


# ---- the checksum: over the whole file, in the comment that ends a zip archive, which is what torch writes

_MARK = b"ssvid-sha256:"
_COMMENT_BYTES = len(_MARK) + 64
_END, _END_BYTES = b"PK\x05\x06", 22  # the last record of a zip archive; its last two bytes count those of the comment


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint with its checksum, whole or not at all.

    Raises:
        DiskFull: there is no room for it.
    """

    def write(file: IO[bytes]) -> None:
        hashing = _Hashing(file)
        torch.save(content, hashing)  # type: ignore[arg-type]
        file.write(hashing.comment())

    write_atomic(path, write)


class _Hashing:
    """A file being written: hands on and hashes what comes, all but the latest two bytes, which will count the comment's."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._held = file, hashlib.sha256(), b""

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        if len(view) < 2:
            view = memoryview(self._held + bytes(view))
        else:
            self._digest.update(self._held)
        self._digest.update(view[:-2])
        self._held = bytes(view[-2:])
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def comment(self) -> bytes:
        """What belongs behind the archive; announced in its last two bytes."""
        if self._held != bytes(2):
            raise RuntimeError("torch.save no longer writes a zip archive without a comment")
        announced = _COMMENT_BYTES.to_bytes(2, "little")
        self._file.seek(-2, os.SEEK_END)
        self._file.write(announced)
        self._digest.update(announced)
        return _MARK + self._digest.hexdigest().encode()


def _is_whole(path: Path) -> bool | None:
    """Whether a file is what was written; None where it holds no checksum."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * (_END_BYTES + _COMMENT_BYTES)))
        tail = file.read()
        end, mark = tail.rfind(_END), tail.rfind(_MARK)
        comment = tail[end + _END_BYTES :] if end >= 0 else b""
        announced = int.from_bytes(tail[end + _END_BYTES - 2 :][:2], "little") if end >= 0 else -1
        if mark < 0 and _COMMENT_BYTES not in (announced, len(comment)):
            return None
        if not announced == len(comment) == _COMMENT_BYTES or not comment.startswith(_MARK):
            return False
        file.seek(0)
        digest, left = hashlib.sha256(), size - _COMMENT_BYTES
        while left:
            part = file.read(min(left, 1 << 20))
            digest.update(part)
            left -= len(part)
    return comment == _MARK + digest.hexdigest().encode()


def not_finite(content: Mapping[str, Any]) -> str:
    """The name of a weight, or of a value that the optimizer keeps, that is NaN or infinite; "" where all are finite."""
    weights = content.get("state_dict", {}).items()
    kept = [
        (f"{name} of parameter {number} in the optimizer", value)
        for optimizer in content.get("optimizer_states", ())
        for number, values in optimizer["state"].items()
        for name, value in values.items()
    ]
    return next((name for name, value in [*weights, *kept] if not _is_finite(value)), "")


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(value))).all())  # no copy of the tensor is made


def _beside(path: Path) -> str:
    """Other checkpoints of the same folder, as a way out."""
    others = sorted(other.name for other in path.parent.glob("*.ckpt") if other.name != path.name)
    return f"Use another checkpoint of the run ({', '.join(others)} lies beside it)" if others else "Use a backup"


def load_checkpoint_dict(path: Path) -> dict[str, Any]:
    """A torch file as a dict, without running any code that it may hold.

    Raises:
        CheckpointError: no such file, damaged, or more than tensors and plain types.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} is not a file. Name a .ckpt that a run wrote, such as checkpoints/last.ckpt."
        )
    is_whole = _is_whole(path)
    if is_whole is False:
        raise CheckpointError(
            f"checkpoint {path} is damaged: its bytes are not those that were written (the checksum differs). "
            f"{_beside(path)}, or train again."
        )
    try:
        _refuse_deflated(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(path, str(error))) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in many ways; all mean the same to the user
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointError(
            f"checkpoint {path} cannot be read: it is damaged or cut short ({type(error).__name__}: {first[:200]}). "
            f"{_beside(path)}, or train again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(content).__name__}, not a dict. Use a file that ssvid wrote."
        )
    if is_whole is None and "ssvid" in content:
        warnings.warn(
            f"checkpoint {path} was written by an ssvid that wrote no checksum; it could not be checked for damage.",
            stacklevel=2,
        )
    return content


def _refused(path: Path, words: str) -> str:
    """Why a file is not opened, and what to do; words: torch's."""
    unknown = UNKNOWN_CLASS.search(words)
    found = f"it holds {unknown[1]}" if unknown else "it is damaged, or holds more than tensors and plain values"
    return (
        f"checkpoint {path} is refused: {found}, and a file with more than tensors and plain values can run code when it is "
        "opened. Use a file that ssvid wrote. From another program's file, init_from=FILE and ssvid export FILE OUT "
        "--backbone-name NAME take the weights and leave everything else; where they refuse it too, ask for the weights as "
        ".safetensors."
    )


def _refuse_deflated(path: Path) -> None:
    """torch stores tensors as they are. A compressed file is not torch's, and can unfold to any size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    unfolded, size = sum(member.file_size for member in members), path.stat().st_size
    if unfolded > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(
            f"checkpoint {path} is refused: it is compressed ({size} bytes that unfold to {unfolded}), and torch writes no "
            "such file. Save it again with torch.save, or unpack it if it is an archive."
        )


def is_plain_tensor(value: object) -> bool:
    """Whether a value is a tensor each of whose numbers is stored: not sparse, quantized, or spread from fewer numbers.

    A file of a few bytes can hold a tensor of any size that repeats one number.
    """
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Meta data and weights of a checkpoint that ssvid wrote.

    Raises:
        CheckpointError: another program's file, a newer format, or a damaged one.
    """
    return checkpoint_of(Path(path), load_checkpoint_dict(Path(path)))


def checkpoint_of(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """The same of what ``load_checkpoint_dict`` gave; raises as ``read_checkpoint``."""
    meta, state = content.get("ssvid"), content.get("state_dict")
    if not isinstance(meta, dict) or not isinstance(state, dict):
        raise CheckpointError(_foreign(path, content))
    version = meta.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}; this ssvid reads formats 1 to {FORMAT}. Install a newer ssvid."
        )
    backbone = meta.get("backbone")
    if not isinstance(backbone, dict) or not isinstance(backbone.get("name"), str) or "options" not in backbone:
        raise CheckpointError(
            f"{path} does not say which backbone it holds. It is damaged; train again, or take a backup."
        )
    check_meta(path, meta)
    odd = [str(key) for key, value in state.items() if not (isinstance(key, str) and is_plain_tensor(value))]
    if odd:
        raise CheckpointError(
            f"{path} holds something else than a whole tensor under {', '.join(odd[:3])}. It is damaged, or ssvid did not write "
            "it; take a backup, or train again."
        )
    weights, task = split_state_dict(state)
    if meta.get("exported") and not _below(task, f"{meta['exported']}."):
        raise CheckpointError(
            f"{path} says that its weights to evaluate are {meta['exported']!r} of its task, and holds none of that name. It is "
            "damaged; take a backup, or train again."
        )
    return Checkpoint(path, meta, weights, task)


def _is_dict_of(value: object, *kinds: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kinds) for k, v in value.items())


def _has(value: object, **kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


# What the entries of the meta data are; one that is not there says nothing (older files), one of another kind is damage.
_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "backbone": lambda v: _has(v, name=str, options=dict) and _is_dict_of(v["options"], object),
    "task": lambda v: v is None or (_has(v, name=str) and _is_dict_of(v, object)),
    "stage": lambda v: v is None or isinstance(v, str),
    "exported": lambda v: v is None or isinstance(v, str),
    "recipe": lambda v: v is None or (_is_dict_of(v, object) and isinstance(v.get("data", {}), dict)),
    "data": lambda v: _is_dict_of(v, object) and all(isinstance(i, str) for i in v.get("content_ids") or ()),
    "seed": lambda v: v is None or isinstance(v, int),
    "placebo": lambda v: isinstance(v, bool),
    "partial": lambda v: isinstance(v, bool),
    "epoch": lambda v: v is None or isinstance(v, int),
    "global_step": lambda v: v is None or isinstance(v, int),
    "pretext_metrics": lambda v: _is_dict_of(v, int, float),
    "out_of_domain_metrics": lambda v: v is None or _is_dict_of(v, int, float),
    "chance": lambda v: _is_dict_of(v, int, float),
    "versions": lambda v: _is_dict_of(v, str),
    "init": lambda v: v is None or _has(v, **{"from": str, "sha256": str, "counts": dict, "unknown_videos": bool}),
}


def check_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Refuse meta data of a checkpoint or an export whose entries are not of the kinds that ssvid writes.

    Raises:
        CheckpointError: names the first such entry.
    """
    for key, is_right in _ENTRIES.items():
        try:
            if key not in meta or is_right(meta[key]):
                continue
        except TypeError:  # what should be a list of names cannot be walked
            pass
        shown = repr(meta[key])
        raise CheckpointError(
            f"{path} has {shown if len(shown) < 80 else shown[:77] + '...'} as {key!r}, which ssvid never writes there. It is "
            "damaged; take a backup, or train again."
        )


def _foreign(path: Path, content: Mapping[str, Any]) -> str:
    """What to do with a file that another program wrote."""
    keys = ", ".join(map(repr, list(content)[:4])) or "nothing"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return (
            f"{path} is a bare state dict (it has {keys}, ...), not a checkpoint of ssvid, and does not say of which network. "
            f"Start a pretraining from it with init_from={path}, or make an export of it: "
            f"ssvid export {path} OUT --backbone-name r3d_18"
        )
    return (
        f"{path} is not a checkpoint of ssvid: it lacks 'ssvid' and 'state_dict' (it has {keys}). "
        "Use checkpoints/last.ckpt of a run, or an exported folder; weights of another program are taken by init_from and by "
        "ssvid export FILE OUT --backbone-name NAME."
    )


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Identity of a set of weights: over names, types, shapes and values, whatever file and memory layout they are in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def split_state_dict(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the backbone and of the task, prefixes cut.

    Raises:
        CheckpointError: a key has neither prefix.
    """
    strangers = [key for key in state if not key.startswith((BACKBONE_PREFIX, TASK_PREFIX))]
    if strangers:
        raise CheckpointError(
            f"{len(strangers)} keys have neither the prefix {BACKBONE_PREFIX!r} nor {TASK_PREFIX!r}: {', '.join(strangers[:3])}."
        )
    return _below(state, BACKBONE_PREFIX), _below(state, TASK_PREFIX)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What stands under a prefix, which is cut."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def match_keys(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> LoadReport:
    """How the keys of a state dict meet those of a network, by name and shape."""
    fits = {k for k in own if k in state and own[k].shape == state[k].shape}
    return LoadReport(
        matched=tuple(k for k in own if k in fits),
        missing=tuple(k for k in own if k not in state),
        unexpected=tuple(k for k in state if k not in own),
        mismatched=tuple(k for k in own if k in state and k not in fits),
    )


def load_backbone_weights(backbone: Backbone, state: Mapping[str, Tensor], *, partial: bool = False) -> LoadReport:
    """Fill a network; every key must match in name and shape unless ``partial``.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; nothing was loaded. With ``partial`` only
            when nothing matches at all.
    """
    report = check_fit(backbone, state, partial=partial)
    backbone.load_state_dict({k: state[k] for k in report.matched}, strict=False)
    return report


def check_fit(backbone: Backbone, state: Mapping[str, Tensor], *, partial: bool = False) -> LoadReport:
    """How weights fit a network, which may be an outline without storage; raises as ``load_backbone_weights``."""
    report = match_keys(backbone.state_dict(), state)
    if not report.matched or not (partial or report.is_complete):
        raise CheckpointError(
            f"the weights do not fit backbone {backbone.info.name}: {report}. Name the backbone and the options that "
            "they were trained with"
            + ("." if partial else ", or accept what fits with --partial (results then say so).")
        )
    return report
