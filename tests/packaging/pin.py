"""Print constraints.txt for the environment that runs this, or with --lowest the floors of pyproject.toml: ``make constraints``."""

import importlib.metadata
import platform
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("torchcodec",)
HEADER = """\
# The versions of the direct dependencies that ssvid was tested with, Python {python} on {system}.
# Made by `make constraints` from the environment .venv. Use: pip install -c constraints.txt '.[torchcodec]'
"""
LOWEST = """\
# The lowest versions that pyproject.toml allows, all at once: the tests pass with them under Python 3.11.
# Made by `make constraints` from pyproject.toml. Use: pip install -c constraints-lowest.txt '.[dev,torchcodec]'
"""


def requirements(*extras: str) -> Iterator[Requirement]:
    """The direct dependencies, with those of some extras, and of the extras that these name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            yield from (
                found for found in requirements(*requirement.extras) if str(found) not in project["dependencies"]
            )
        else:
            yield requirement


def floor(requirement: Requirement) -> str:
    """The lowest version that is allowed."""
    (version,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
    return version


def installed() -> str:
    """One line per direct dependency, sorted; those of other systems are named once."""
    names = sorted({requirement.name for requirement in requirements(*EXTRAS)}, key=str.lower)
    pins = [f"{name}=={importlib.metadata.version(name)}\n" for name in names]
    return HEADER.format(
        python=platform.python_version(), system=f"{platform.system()} {platform.machine()}"
    ) + "".join(pins)


def lowest() -> str:
    """One line per direct dependency and tool of the tests, sorted."""
    pins = {f"{requirement.name}=={floor(requirement)}\n" for requirement in requirements("dev", *EXTRAS)}
    return LOWEST + "".join(sorted(pins, key=str.lower))


if __name__ == "__main__":
    print(lowest() if "--lowest" in sys.argv else installed(), end="")
