"""What this process runs on: usable cores, versions, instruction sets, graphics cards. No names of hosts or users."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
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
    """Versions of what a number depends on, and the Python and machine that made it. Imports torch."""
    return package_versions() | {"python": platform.python_version(), "machine": platform.machine()} | arithmetic()


def arithmetic() -> dict[str, str]:
    """By which instructions this process computes on its processor: trained numbers depend on them as on the seed.

    instructions: torch's, such as AVX512 (the variable ATEN_CPU_CAPABILITY lowers them). blas: numpy's library and kernel,
    such as "openblas 0.3.31 SkylakeX" (OPENBLAS_CORETYPE sets it); left out where it does not tell. Imports torch.
    """
    import torch

    found = {"instructions": torch.backends.cpu.get_cpu_capability()}
    blas = _blas()
    return found | ({"blas": blas} if blas else {})


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info  # comes with scikit-learn
    except ImportError:
        return ""
    import numpy  # noqa: F401 - what has not been imported is not in the list

    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    loaded.sort(key=lambda library: "numpy" not in library["filepath"])  # scipy has one of its own
    words = (loaded[0].get(name) for name in ("internal_api", "version", "architecture")) if loaded else ()
    return " ".join(str(word) for word in words if word)


def arithmetic_note(recorded: Mapping[str, str]) -> str:
    """In how far this process computes otherwise than the one that ``versions`` recorded, in words; "" where it does not.

    Older records do not hold everything; what is missing is not compared.
    """
    now = versions()
    keys = ("machine", "instructions", "blas", "torch", "numpy")
    differ = [
        f"{key} {recorded[key]}, here {now.get(key)}" for key in keys if recorded.get(key, now.get(key)) != now.get(key)
    ]
    if not differ:
        return ""
    return f"it was computed with {'; '.join(differ)}: trained numbers may differ by as much as between seeds"


def environment() -> dict[str, Any]:
    """Versions and hardware, for ``env.json`` and benchmark reports. Imports torch."""
    import torch

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": num_cores(),
        **arithmetic(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": package_versions(),
    }
