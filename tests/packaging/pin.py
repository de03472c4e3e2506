"""Print constraints.txt for the environment that runs this: ``make constraints``."""

import importlib.metadata
import platform
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("torchcodec",)
HEADER = """\
# The versions of the direct dependencies that ssvid was tested with, Python {python} on {system}.
# Made by `make constraints` from the environment .venv. Use: pip install -c constraints.txt '.[torchcodec]'
"""


def main() -> None:
    """One line per direct dependency of pyproject.toml, sorted; those of other systems are named once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    names = sorted({Requirement(line).name for line in lines}, key=str.lower)
    print(HEADER.format(python=platform.python_version(), system=f"{platform.system()} {platform.machine()}"), end="")
    for name in names:
        print(f"{name}=={importlib.metadata.version(name)}")


if __name__ == "__main__":
    main()
