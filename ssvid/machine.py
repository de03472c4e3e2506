"""What this process runs on: usable cores, versions of packages, graphics cards. No names of hosts or users."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

# What numbers and files depend on.
PACKAGES = (
    "ssvid",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchcodec",
    "av",
    "decord",
    "numpy",
    "scikit-learn",
)


def num_cores() -> int:
    """Cores that this process may use; containers and taskset are respected."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """The installed version, None where there is none."""
    import importlib.metadata  # here, because it is a third of the start-up time of most verbs

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {name: package_version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


def versions() -> dict[str, str]:
    """Versions of what a number depends on, and the Python and machine that made it."""
    return package_versions() | {"python": platform.python_version(), "machine": platform.machine()}


def environment() -> dict[str, Any]:
    """Versions and hardware, for ``env.json`` and benchmark reports. Imports torch."""
    import torch

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": num_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": package_versions(),
    }
