"""constraints.txt pins every direct dependency to a version that its bound admits; the Dockerfile uses what exists."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.packaging import pin

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What the image installs; the tools of developers need no pins.
INSTALLED_EXTRAS = ("torchcodec",)


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def direct() -> list[Requirement]:
    extras = [line for extra in INSTALLED_EXTRAS for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]


def test_every_direct_dependency_is_pinned_within_its_bound():
    pins, wanted = constraints(), direct()
    assert len(wanted) >= 15
    assert set(pins) == {canonicalize_name(requirement.name) for requirement in wanted}
    for requirement in wanted:
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(Version(pin.version)), f"{requirement} does not admit {pin.version}"


def test_the_command_in_the_header_of_the_constraints_is_the_one_of_the_makefile():
    header = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "make constraints" in header
    assert re.search(r"^constraints: .*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_lowest_versions_are_the_floors_of_pyproject():
    assert (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8") == pin.lowest()
    assert len(pin.lowest().splitlines()) >= 30
    assert "av==17.1\n" in pin.lowest()


# ---- Dockerfile ------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def values(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_what_the_dockerfile_copies_exists_and_is_let_in():
    sources = [word for value in values("COPY") for word in shlex.split(value)[:-1] if not word.startswith("--")]
    assert {"pyproject.toml", "constraints.txt", "ssvid", "pretext_tasks", "recipes"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored(), f"{source} is not let in by .dockerignore"
    assert ignored()[0] == "*"


def test_the_dockerfile_copies_what_the_wheel_is_built_from():
    sources = {word for value in values("COPY") for word in shlex.split(value)[:-1]}
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"}
    assert needed <= sources


def test_the_image_installs_with_the_constraints_and_runs_ssvid_as_nobody_special():
    (install,) = (value for value in values("RUN") if "pip install" in value)
    words = shlex.split(install)
    assert words[words.index("-c") + 1] == "constraints.txt"
    assert ".[torchcodec]" in words
    assert json.loads(values("ENTRYPOINT")[0]) == ["ssvid"]
    assert values("USER")[-1] not in ("root", "0")
    assert any("ffmpeg" in value for value in values("RUN"))
    assert values("FROM") == ["${BASE}"]


@pytest.mark.parametrize("name", ["BASE"])
def test_its_arguments_have_defaults(name):
    assert any(re.fullmatch(rf"{name}=\S+", value) for value in values("ARG"))
