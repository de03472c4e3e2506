"""Which recipes there are, and which file a name means. Imports neither torch nor omegaconf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssvid.errors import RecipeError, did_you_mean
from ssvid.files import expanded, takes_paths
from ssvid.recipe.yaml_text import MAX_BYTES, parse_yaml

SUFFIXES = (".yaml", ".yml")
RESOLVED = "recipe.resolved.yaml"  # what a run wrote down itself


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that comes with ssvid. ``name`` is what the command line takes: ``demo/speediness``."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        """The file as it stands."""
        return read_recipe_text(self.path)

    @property
    def header(self) -> str:
        """The comment at its top: what it is, paper, where it differs, the command, cost and expected number."""
        return header_of(self.text)

    @property
    def title(self) -> str:
        """First line of the header."""
        return next((line for line in self.header.splitlines() if line.strip()), "")


def shipped_recipes_dir() -> Path:
    """Folder of the recipes that come with ssvid: inside an installed wheel, or beside the package in a checkout.

    Raises:
        RecipeError: neither folder exists.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "shipped_recipes", package.parent / "recipes"):
        if folder.is_dir():
            return folder
    raise RecipeError(
        f"the recipes that come with ssvid are missing: neither {package / 'shipped_recipes'} nor "
        f"{package.parent / 'recipes'} is a folder. Install ssvid again, or give the path of a recipe."
    )


def list_recipes() -> list[RecipeFile]:
    """All recipes that come with ssvid, sorted by name."""
    root = shipped_recipes_dir()
    files = sorted(p for suffix in SUFFIXES for p in root.rglob(f"*{suffix}"))
    return [RecipeFile(p.relative_to(root).with_suffix("").as_posix(), p) for p in files]


@takes_paths("name_or_path")
def find_recipe(name_or_path: str | Path) -> Path:
    """The file that a path or a shipped name (``demo/speediness``) means.

    Raises:
        RecipeError: there is no such file and no such name, or it is a folder.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = {recipe.name: recipe.path for recipe in list_recipes()}
    name = path.as_posix()
    if name in shipped:
        return shipped[name]
    if (path / RESOLVED).is_file():
        raise RecipeError(
            f"{name_or_path} is the folder of a run, and a recipe is asked for. Go on with the run: ssvid pretrain "
            f"{name_or_path} --resume. Take its recipe: {path / RESOLVED}"
        )
    if path.is_dir():
        raise RecipeError(
            f"{name_or_path} is a folder, and a recipe is a YAML file or a shipped name. "
            f"For a folder of videos give a recipe and data.root={name_or_path}. See: ssvid recipes"
        )
    if path.suffix in SUFFIXES or path.is_absolute() or str(name_or_path).startswith((".", "~")):
        hint = did_you_mean(path.with_suffix("").as_posix(), shipped)
        raise RecipeError(f"there is no recipe file {name_or_path}. A shipped recipe is called by its name. {hint}")
    raise RecipeError(f"unknown recipe {name!r}: neither a file nor a shipped name. {did_you_mean(name, shipped)}")


def check_early(name_or_path: str) -> None:
    """Refuse a file that is not there or is no YAML, before torch is imported. Other names are looked up later.

    Raises:
        RecipeError: as ``find_recipe`` and ``parse_yaml``.
    """
    looks_like_one = "/" in name_or_path or name_or_path.endswith(SUFFIXES)
    if looks_like_one and not Path(expanded(name_or_path)).is_dir():
        parse_yaml(read_recipe_text(find_recipe(name_or_path)), f"recipe {name_or_path}")


def read_recipe_text(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: it cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise RecipeError(
                f"recipe {path} has {size:,} bytes; a recipe may have {MAX_BYTES:,}. Is it the right file?"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not UTF-8 text (byte {error.start}). Is it the right file?") from error
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}.") from error


def header_of(text: str) -> str:
    """The comment lines at the top of a recipe, without their ``#``."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" ").rstrip())
    return "\n".join(lines).strip("\n")
