"""``ssvid doctor``: what was found on this machine, what is known to be bad, the one command that helps most."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections.abc import Callable
from typing import Any

import ssvid
from ssvid.cli import terminal
from ssvid.cli.parser import Verbs
from ssvid.machine import num_cores, package_version

_DESCRIPTION = "Says what was found here, what is known to be bad, and the one command that makes it faster."
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "omegaconf", "numpy")


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "versions, devices, decoders, and what to fix"
    verbs.add("doctor", run, about, _DESCRIPTION, "example:\n  ssvid doctor --json\n")


def run(args: argparse.Namespace) -> None:
    """Examine this machine and print one paragraph, or JSON."""
    found = examine()
    if args.json:
        terminal.print_json(found)
    else:
        print(terminal.wrap(paragraph(found)))


def examine() -> dict[str, Any]:
    """Everything that doctor reports, as plain types. What cannot be examined is named in ``failures``."""
    failures: dict[str, str] = {}

    def examined(what: str, examine_it: Callable[[], Any], otherwise: Any) -> Any:
        """What the function finds. An installation may be broken in any way, and then the report matters most."""
        try:
            return examine_it()
        except Exception as error:
            failures[what] = f"{type(error).__name__}: {error}"
            return otherwise

    found: dict[str, Any] = {
        "ssvid": ssvid.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: package_version(name) for name in _PACKAGES},
        "cores": num_cores(),
        "gpus": examined("gpus", _gpus, []),
        "ffmpeg": shutil.which("ffmpeg"),
        "decoders": examined("decoders", _decoders, {}),
        "tasks": examined("tasks", lambda: ssvid.list_tasks(), []),
        "backbones": examined("backbones", lambda: ssvid.list_backbones(), []),
        "recipes": examined("recipes", lambda: [recipe.name for recipe in ssvid.list_recipes()], []),
        "broken_plugins": examined("broken_plugins", _broken_plugins, []),
        "failures": failures,
    }
    found["auto_decoder"] = next((name for name, status in found["decoders"].items() if status["works"]), None)
    found["warnings"] = _warnings(found) + examined("cudnn", _cudnn_warnings, [])
    found["faster"] = way_to_be_faster(found["decoders"])
    return found


def paragraph(found: dict[str, Any]) -> str:
    """The report in one paragraph; what is wrong and the way to be faster get a line each."""
    packages = ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())
    decoders = "; ".join(_decoder_words(name, status) for name, status in found["decoders"].items())
    counts = ", ".join(terminal.counted(found[f"{noun}s"], noun) for noun in ("task", "backbone", "recipe"))
    sentences = [
        f"ssvid {found['ssvid']} on Python {found['python']}, {found['system']}: {packages}.",
        f"{terminal.counted(range(found['cores']), 'CPU core')} usable; {_gpu_words(found['gpus'])}.",
        f"FFmpeg: {found['ffmpeg'] or 'not found; only torchcodec needs it'}.",
        f"Decoders, fastest first: {decoders or 'not known'}.",
        f"'auto' takes {found['auto_decoder']}, or the next one for a file that it does not decode exactly.",
        f"Found: {counts}.",
    ]
    lines = [" ".join(sentences)]
    lines += [f"warning: {what} could not be examined: {why}" for what, why in found["failures"].items()]
    lines += [f"warning: plug-in {b['module']} failed to import: {b['reason']}" for b in found["broken_plugins"]]
    lines += [f"warning: {warning}" for warning in found["warnings"]]
    if found["faster"]:
        lines.append(f"To make it faster: {found['faster']}")
    elif len(lines) == 1:
        lines.append("Nothing to fix was found.")
    return "\n".join(lines)


def cudnn_warnings(torch_version: str, cudnn: int | None) -> list[str]:
    """Combinations that are known to be slow or wrong for 3-D convolutions on a GPU.

    Args:
        cudnn: as torch numbers it, 91002 for 9.10.2; None without CUDA.
    """
    if cudnn is None:
        return []
    warnings = []
    shown = f"{cudnn // 10000}.{cudnn % 10000 // 100}.{cudnn % 100}"
    if torch_version.startswith("2.9.") and cudnn < 91500:
        warnings.append(
            f"torch {torch_version} with cuDNN {shown}: 3-D convolutions are about 4 times slower under mixed precision "
            "and take more memory. Use torch 2.10 or newer, or pip install 'nvidia-cudnn-cu12>=9.15'."
        )
    if 90800 <= cudnn <= 91002:
        warnings.append(
            f"cuDNN {shown}: 3-D convolutions in bf16 can return wrong values. Use cuDNN 9.15 or newer, or train with "
            "trainer.precision=32."
        )
    return warnings


def way_to_be_faster(decoders: dict[str, dict[str, Any]]) -> str | None:
    """The one command that would make this machine faster; None where nothing is left to gain."""
    torchcodec = decoders.get("torchcodec")
    if torchcodec is None or torchcodec["works"]:
        return None
    install = "" if torchcodec["version"] else "pip install 'ssvid[torchcodec]'"
    libraries = "" if install and shutil.which("ffmpeg") else _install_ffmpeg()
    return " && ".join(part for part in (libraries, install) if part)


def _install_ffmpeg() -> str:
    sudo = "sudo " if hasattr(os, "geteuid") and os.geteuid() != 0 else ""
    managers = {
        "apt-get": f"{sudo}apt-get install -y ffmpeg",
        "dnf": f"{sudo}dnf install -y ffmpeg-free",
        "brew": "brew install ffmpeg",
        "conda": "conda install -y -c conda-forge ffmpeg",
    }
    return next((command for name, command in managers.items() if shutil.which(name)), "(install FFmpeg 4 or newer)")


def _warnings(found: dict[str, Any]) -> list[str]:
    warnings = []
    missing = [name for name, version in found["packages"].items() if version is None]
    if missing:
        warnings.append(f"{', '.join(missing)} is not installed. Fix it with: pip install {' '.join(missing)}")
    pyav = found["decoders"].get("pyav")
    if pyav and not pyav["works"]:
        warnings.append(f"no video can be read here: PyAV, which says what the frames of a file are, {pyav['problem']}")
    if not found["gpus"] and shutil.which("nvidia-smi"):
        warnings.append(
            "there is an NVIDIA driver, but torch sees no GPU. Install a torch build for CUDA, or fix the driver."
        )
    return warnings


def _cudnn_warnings() -> list[str]:
    import torch

    return cudnn_warnings(torch.__version__, torch.backends.cudnn.version() if torch.cuda.is_available() else None)


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    bf16 = torch.cuda.is_bf16_supported()
    return [{"name": d.name, "memory_gib": round(d.total_memory / 2**30, 1), "bf16": bf16} for d in devices]


def _decoders() -> dict[str, dict[str, Any]]:
    """Every decoder on trial: one that is installed may still decode nothing, of another version than ssvid is made for."""
    from ssvid.video.decoders.choice import available_decoders, way_out
    from ssvid.video.trial import decoding_problem

    found = {}
    for name, status in available_decoders().items():
        problem = decoding_problem(name) if status.works else None
        told = f"{problem}. {way_out(name)}" if problem else status.problem
        found[name] = {"version": status.version, "problem": told, "works": status.works and problem is None}
    return found


def _broken_plugins() -> list[dict[str, str]]:
    from ssvid.backbones import backbones
    from ssvid.data.readers.shelf import readers
    from ssvid.evals.contract import evaluations
    from ssvid.tasks import tasks

    readers.load()
    evaluations.load()
    shelves = (tasks, backbones, readers, evaluations)
    return [{"module": b.module, "reason": b.reason} for shelf in shelves for b in shelf.broken]


def _gpu_words(gpus: list[dict[str, Any]]) -> str:
    if not gpus:
        return "no GPU"
    words = [f"{gpu['name']} ({gpu['memory_gib']:g} GiB, {'bf16' if gpu['bf16'] else 'no bf16'})" for gpu in gpus]
    return f"{terminal.counted(gpus, 'GPU')}: {', '.join(words)}"


def _decoder_words(name: str, status: dict[str, Any]) -> str:
    if status["works"]:
        return f"{name} {status['version']}"
    version = f" {status['version']}" if status["version"] else ""
    return f"{name}{version} ({str(status['problem']).rstrip('.')})"
