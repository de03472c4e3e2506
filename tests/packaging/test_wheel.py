"""What is built is what was meant: the wheel holds both packages and every recipe, nothing else, and works on its own."""

import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from ssvid.recipe.find import list_recipes

ROOT = Path(__file__).resolve().parents[2]

# -S: no .pth file is read, so that the editable installation of the checkout is out of sight.
ALONE = """
import contextlib, importlib.metadata, io, json, sys
from pathlib import Path
import ssvid, pretext_tasks
from ssvid.cli import main
from ssvid.templates import render

def cli(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(words))
    assert code == 0, words
    return out.getvalue()

print(json.dumps({
    "path": sys.path,
    "files": [ssvid.__file__, pretext_tasks.__file__],
    "recipes": [r["name"] for r in json.loads(cli("recipes", "--json"))],
    "entry_points": [e.value for e in importlib.metadata.entry_points(group="ssvid.tasks")],
    "tasks": [t["name"] for t in json.loads(cli("tasks", "--json"))["tasks"]],
    "shown": cli("show", "demo/speediness"),
    "page": render("base.html", title="<alone>"),
}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The sdist of this checkout, the wheel made from that sdist, and the wheel made from the checkout itself."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    for options in (["--outdir", str(out / "by_way_of_sdist")], ["--wheel", "--outdir", str(out / "direct")]):
        done = subprocess.run([*build, *options, str(ROOT)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (out / "by_way_of_sdist").glob("*.tar.gz")
    (wheel,) = (out / "by_way_of_sdist").glob("*.whl")
    (direct,) = (out / "direct").glob("*.whl")
    return {"sdist": sdist, "wheel": wheel, "direct": direct}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources(folder: str, suffix: str) -> set[str]:
    """Files of the checkout that git does not ignore."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed: which files belong to the checkout is not known")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:  # the checkout belongs to another user, say
        pytest.skip(f"git does not read this checkout: {listed.stderr.strip()}")
    return {name for name in listed.stdout.splitlines() if name.endswith(suffix) and (ROOT / name).is_file()}


def test_the_sdist_and_the_checkout_build_the_same_wheel(built):
    assert built["wheel"].name == built["direct"].name
    assert contents(built["wheel"]) == contents(built["direct"])


def test_the_wheel_holds_both_packages_and_the_recipes_and_nothing_else(built):
    names = set(contents(built["direct"]))
    meta = {name for name in names if ".dist-info/" in name}
    recipes = {name for name in names if name.startswith("ssvid/shipped_recipes/")}
    templates = {name for name in names if name.startswith("ssvid/templates/") and not name.endswith(".py")}
    python = names - meta - recipes - templates
    assert {name.partition("/")[2] for name in meta} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip
    assert all(name.endswith((".py", "py.typed")) for name in python)
    assert {name.partition("/")[0] for name in python} == {"ssvid", "pretext_tasks"}
    if (ROOT / ".git").exists():
        assert {name for name in python if name.endswith(".py")} == sources("ssvid", ".py") | sources(
            "pretext_tasks", ".py"
        )
        shipped = {name.removeprefix("ssvid/shipped_") for name in recipes}
        assert shipped == sources("recipes", ".yaml")
        assert templates == {
            name
            for ending in (".html", ".svg", ".css", ".js", ".md", ".tex")
            for name in sources("ssvid/templates", ending)
        }
        assert len(templates) > 5


def test_the_metadata_says_what_pyproject_says(built):
    files = contents(built["direct"])
    meta = next(text for name, text in files.items() if name.endswith("/METADATA"))
    message = email.message_from_bytes(meta)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert message["Version"] == project["version"]
    assert message["License-Expression"] == "Apache-2.0"
    assert message["Requires-Python"].replace(" ", "") in {"<3.15,>=3.11", ">=3.11,<3.15"}
    assert set(message.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert len([r for r in message.get_all("Requires-Dist") if "extra ==" not in r]) == len(project["dependencies"])


@pytest.mark.slow  # two installations in processes of their own
def test_an_installed_wheel_works_without_the_checkout(built, tmp_path):
    site = tmp_path / "site"
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(built["wheel"])]
    subprocess.run(command, check=True)
    libraries = [str(site), sysconfig.get_path("purelib")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(libraries), "SSVID_PLUGINS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert str(ROOT) not in found["path"]
    assert all(Path(file).is_relative_to(site) for file in found["files"])
    assert found["recipes"] == [recipe.name for recipe in list_recipes()]
    assert len(found["recipes"]) >= 6
    assert "pretext_tasks" in found["entry_points"]
    assert "speediness" in found["tasks"]
    assert "speediness" in found["shown"]
    assert "<title>&lt;alone&gt;</title>" in found["page"]
