"""``ssvid doctor``: what was found on this machine, what is known to be bad, the one command that helps most."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import shutil
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "omegaconf", "numpy")


def add_doctor(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="versions, devices, decoders, and what to mend",
        description="Says what was found here, what is known to be bad, and the one command that makes it faster.",
        epilog="example:\n  ssvid doctor --json\n",
        parents=[common],
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Examine this machine and print one paragraph, or JSON."""
    found = examine()
    if args.json:
        terminal.print_json(found)
    else:
        print(terminal.wrap(paragraph(found)))


def examine() -> dict[str, Any]:
    """Everything that doctor reports, as plain types."""
    found: dict[str, Any] = {
        "ssvid": importlib.metadata.version("ssvid") if _is_installed("ssvid") else _own_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) if _is_installed(name) else None for name in _PACKAGES},
        "cores": _usable_cores(),
        "gpus": _gpus(),
        "ffmpeg": shutil.which("ffmpeg"),
        "decoders": _decoders(),
        "auto_decoder": _auto_decoder(),
        "plugins": _plugins(),
    }
    found["warnings"] = _warnings(found)
    found["faster"] = way_to_be_faster(found)
    return found


def paragraph(found: dict[str, Any]) -> str:
    """The report in one paragraph; warnings and the way to be faster get a line each."""
    packages = ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())
    plugins = found["plugins"]
    sentences = [
        f"ssvid {found['ssvid']} on Python {found['python']}, {found['system']}: {packages}.",
        f"{found['cores']} CPU cores usable; {_gpu_words(found['gpus'])}.",
        f"FFmpeg program: {found['ffmpeg'] or 'not found (not needed: PyAV carries its own)'}.",
        f"Decoders: {'; '.join(_decoder_words(name, status) for name, status in found['decoders'].items())}.",
        f"'auto' takes {found['auto_decoder']} where the index has found it right for a file, else the next one that is.",
        f"{_counted(plugins['tasks'], 'task')}, {_counted(plugins['backbones'], 'backbone')}, "
        f"{_counted(plugins['recipes'], 'recipe')} found.",
    ]
    lines = [" ".join(sentences)]
    lines += [f"broken plug-in: {b['module']} failed to import: {b['reason']}" for b in plugins["broken"]]
    lines += [f"warning: {warning}" for warning in found["warnings"]]
    lines.append(f"To make it faster: {found['faster']}" if found["faster"] else "Nothing to mend was found.")
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
            f"torch {torch_version} with cuDNN {shown}: 3-D convolutions under mixed precision are about 4 times slower and "
            "take more memory. Use torch 2.10 or newer, or pip install 'nvidia-cudnn-cu12>=9.15'."
        )
    if 90800 <= cudnn <= 91002:
        warnings.append(
            f"cuDNN {shown}: 3-D convolutions in bf16 can return wrong values. Use cuDNN 9.15 or newer, or train with "
            "trainer.precision=32."
        )
    return warnings


def way_to_be_faster(found: dict[str, Any]) -> str | None:
    """The one command that would make this machine faster; None where nothing is left to gain."""
    torchcodec = found["decoders"].get("torchcodec", {})
    if not torchcodec.get("works"):
        system = "" if found["ffmpeg"] else "apt install ffmpeg && "
        return f"{system}pip install 'ssvid[torchcodec]'"
    return None


def _warnings(found: dict[str, Any]) -> list[str]:
    import torch

    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    warnings = cudnn_warnings(torch.__version__, cudnn)
    missing = [name for name, version in found["packages"].items() if version is None]
    if missing:
        warnings.append(f"{', '.join(missing)} is not installed. Mend it with: pip install --force-reinstall ssvid")
    return warnings


def _is_installed(distribution: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(distribution))
    return False


def _own_version() -> str:
    from ssvid import __version__

    return __version__


def _usable_cores() -> int:
    """Cores that this process may run on: containers and schedulers give fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    bf16 = torch.cuda.is_bf16_supported()
    return [{"name": d.name, "memory_gib": round(d.total_memory / 2**30, 1), "bf16": bf16} for d in devices]


def _decoders() -> dict[str, dict[str, Any]]:
    from ssvid.video import available_decoders

    return {
        name: {"version": s.version, "problem": s.problem, "works": s.version is not None and s.problem is None}
        for name, s in available_decoders().items()
    }


def _auto_decoder() -> str:
    from ssvid.video import DECODERS_BY_SPEED, resolve_decoder

    return resolve_decoder("auto", DECODERS_BY_SPEED)


def _plugins() -> dict[str, Any]:
    from ssvid.backbones import backbones
    from ssvid.recipe.find import list_recipes
    from ssvid.tasks import tasks

    return {
        "tasks": tasks.names(),
        "backbones": backbones.names(),
        "recipes": [recipe.name for recipe in list_recipes()],
        "broken": [{"module": b.module, "reason": b.reason} for b in (*tasks.broken, *backbones.broken)],
    }


def _gpu_words(gpus: list[dict[str, Any]]) -> str:
    if not gpus:
        return "no GPU"
    words = [f"{gpu['name']} ({gpu['memory_gib']:g} GiB, {'bf16' if gpu['bf16'] else 'no bf16'})" for gpu in gpus]
    return f"{_counted(gpus, 'GPU')}: {', '.join(words)}"


def _decoder_words(name: str, status: dict[str, Any]) -> str:
    if status["works"]:
        return f"{name} {status['version']}"
    version = f" {status['version']}" if status["version"] else ""
    return f"{name}{version} ({str(status['problem']).rstrip('.')})"


def _counted(things: list[Any], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
