"""The documentation as a site: its front page leads everywhere, and Sphinx builds it without a warning."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssvid

DOCS = Path(__file__).resolve().parents[1] / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")


def toctree() -> list[str]:
    """Entries of all toctrees of the front page: names of pages, and patterns."""
    trees = re.findall(r"^~~~\{toctree\}\n(.*?)^~~~$", INDEX, re.MULTILINE | re.DOTALL)
    assert len(trees) == 5
    return [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]


def pages(pattern: str) -> set[str]:
    found = {path for suffix in (".md", ".ipynb") for path in DOCS.glob(pattern + suffix)}
    return {path.relative_to(DOCS).with_suffix("").as_posix() for path in found} - {"index"}


def test_every_page_that_the_front_page_names_exists():
    named = [entry for entry in toctree() if "*" not in entry]
    assert len(named) >= 8
    assert [name for name in named if not pages(name)] == []
    links = re.findall(r"\]\(([^)#]+)\)", INDEX)
    assert len(links) >= 12
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_the_front_page_leads_to_every_page():
    reached = set().union(*(pages(entry) for entry in toctree()))
    everything = pages("**/*") - {page for page in pages("**/*") if page.startswith("_build")}
    assert len(everything) >= 15
    assert reached == everything


def test_every_public_class_and_contract_is_on_an_api_page():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    for module in ("ssvid", "ssvid.tasks", "ssvid.types", "ssvid.testing", "ssvid.backbones.contract", "ssvid.errors"):
        assert f".. automodule:: {module}\n" in text


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_nb", "furo", "ipykernel"):
        pytest.importorskip(module, reason="pip install -e '.[docs]'")
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build"))
    # Pages link to files of the checkout beside docs/; they are found at the same place from the copy.
    for name in ("pretext_tasks", "recipes"):
        (tmp_path / name).symlink_to(DOCS.parent / name)
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(tmp_path / "html")]
    env = {**os.environ, "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    programs = (tmp_path / "html" / "api" / "programs.html").read_text(encoding="utf-8")
    assert len(ssvid.__all__) >= 7
    for name in set(ssvid.__all__) - {"__version__"}:
        assert f'id="ssvid.{name}"' in programs, name
    classes = (tmp_path / "html" / "api" / "tasks.html").read_text(encoding="utf-8")
    for name in ("tasks.PretextTask", "types.TaskOutput", "types.ClipPlan", "testing.check_task"):
        assert f'id="ssvid.{name}"' in classes, name
