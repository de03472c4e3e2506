"""docs/add_a_reader.md followed to the letter: its file written, its package installed, its commands typed."""

import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "add_a_reader.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

MADE = """
import csv, json, sys
from ssvid.cli import main

assert main("data synth synthetic --train 16 --test 4 --seconds 2 --size 32 --workers 1".split()) == 0
with open("synthetic/manifest.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
(first,) = json.loads(sys.argv[1])
listed = [{"file": row["path"], "action": row["label"], "set": row["split"]} for row in rows]
assert listed[0].keys() == first.keys() and any(one["file"].startswith("train/") for one in listed)
with open("videos.json", "w", encoding="utf-8") as file:
    json.dump(listed, file)
"""

INDEXED = """
import sys
from ssvid.cli import main
from ssvid.data.manifest import Manifest

assert main([*sys.argv[1].split()[1:], "--workers", "1"]) == 0
made, known = Manifest.load("videos.csv", "synthetic"), Manifest.load("synthetic/manifest.csv", "synthetic")
facts = [[(row.path, row.label, row.split) for row in table.rows] for table in (made, known)]
assert facts[0] == facts[1] and len(facts[0]) == 20, facts
assert main("data index synthetic --reader json_lst".split()) == 2
assert main("data index synthetic --reader json_list -o new.csv".split()) == 2
with open("broken.json", "w") as file:
    file.write("[{}]")
assert main("data index synthetic --reader json_list --list broken.json -o new.csv".split()) == 2
try:
    main("data index --help".split())
except SystemExit:
    pass
"""

RUN = """
import sys
from ssvid.cli import main

small = "loader.global_batch=4 trainer.max_steps=2 trainer.accelerator=cpu loader.workers_per_device=0 data.index_workers=1 --run-dir runs/mine"
assert main([*sys.argv[1].split()[1:], *small.split()]) == 0
few = "probe.knn_ks=[5] features.crop_px=32 features.resize_px=32 features.num_clips=1 data.index_workers=1 --out scored"
assert main([*sys.argv[2].split()[1:], *few.split()]) == 0
"""


def written(language: str) -> str:
    """The first snippet of that language."""
    return next(text for name, text in FENCE.findall(PAGE) if name == language)


def command(verb: str) -> str:
    (line,) = (line for line in written("bash").splitlines() if line.startswith(f"ssvid {verb} "))
    return line


@pytest.fixture(scope="module")
def site(tmp_path_factory, pip_install) -> Path:
    """The package that the page has its reader make, installed from its own pyproject.toml."""
    project = tmp_path_factory.mktemp("readers")
    (project / "my_readers").mkdir()
    (project / "my_readers" / "__init__.py").touch()
    (project / "my_readers" / "json_list.py").write_text(written("python"), encoding="utf-8")
    (project / "pyproject.toml").write_text(written("toml"), encoding="utf-8")
    pip_install(project, project / "site")
    return project / "site"


@pytest.fixture(scope="module")
def folder(site, python_with, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    done = python_with(site, MADE, folder, written("json"))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reader_of_another_package_indexes_and_is_listed(site, folder, python_with):
    done = python_with(site, INDEXED, folder, command("data"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  json_list +JSON: an array of objects", done.stdout, re.MULTILINE)
    said = " ".join(done.stderr.split())
    assert "unknown value 'json_lst'. Did you mean 'json_list'?" in said
    assert "list must name a file for data.name=json_list" in said
    assert (
        "data.list (broken.json) must be JSON, an array of objects with file, action and set (KeyError: 'file')" in said
    )


@pytest.mark.slow
def test_it_pretrains_and_probes(site, folder, python_with):
    done = python_with(site, RUN, folder, command("pretrain"), command("probe"))
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "scored" / "results.json").read_text())
