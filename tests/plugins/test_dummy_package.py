"""A package that knows ssvid only from its documentation: installed by pip, found by name, trained and exported."""

import json
import re
import shutil
from pathlib import Path

import pytest

PACKAGE = Path(__file__).with_name("dummy_package")

# One process for all of it: importing torch is most of the time. Each line that matters is a mark in the result.
WHOLE_WAY = """
import contextlib, io, json, sys
from ssvid.cli import main

def cli(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return {"code": code, "out": out.getvalue(), "err": " ".join(err.getvalue().split())}

found = {verb: cli(*verb.split()) for verb in ("tasks", "backbones dummy_net", "tasks dummy_stil", "tasks dummy_still --json")}

from ssvid.testing import check_backbone, check_task
check_backbone("dummy_net")
check_task("dummy_still", "dummy_net")
check_task("dummy_still", "tiny3d")

recipe = {"kind": "pretrain", "data": {"name": "folder", "root": sys.argv[1], "index_workers": 1},
          "task": {"name": "dummy_still", "options": {"num_frames": 4}},
          "backbone": {"name": "dummy_net", "options": {"width": 2}},
          "optim": {"epochs": 1, "warmup_epochs": 0}, "trainer": {"max_steps": 2, "accelerator": "cpu"},
          "loader": {"global_batch": 4, "workers_per_device": 0}}
import ssvid, torch
result = ssvid.pretrain(recipe, run_dir="run", show_progress=False)
found["backbones"] = ssvid.list_backbones()
found["steps"], found["chance"] = result.num_steps, result.chance
found["export"] = cli("export", "run", "exported")
trained = torch.load(result.checkpoint, weights_only=True)["state_dict"]["backbone.deep.0.weight"]
loaded = ssvid.load_backbone("exported")
found["class"] = type(loaded).__module__
found["same_weights"] = torch.equal(loaded.deep[0].weight.detach(), trained)
print(json.dumps(found))
"""

CLASH = """
from ssvid.cli import main
print([main(words.split()) for words in ("tasks", "backbones tiny3d", "tasks")])
"""


@pytest.fixture(scope="module")
def installed(pip_install, tmp_path_factory) -> Path:
    """The dummy package in a folder of its own, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(PACKAGE, folder / "source")
    pip_install(folder / "source", folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def found(installed, python_with, video_folder, tmp_path_factory):
    done = python_with(installed, WHOLE_WAY, tmp_path_factory.mktemp("work"), str(video_folder))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_its_task_and_network_are_listed_beside_ours(found):
    assert found["tasks"]["code"] == found["backbones dummy_net"]["code"] == 0
    assert re.search(r"^dummy_still +Does this clip move", found["tasks"]["out"], re.MULTILINE)
    assert "speediness" in found["tasks"]["out"]
    assert {"dummy_net", "tiny3d", "r3d_18"} <= set(found["backbones"])
    assert "file: ssvid_dummy.network" in found["backbones dummy_net"]["out"]
    described = json.loads(found["tasks dummy_still --json"]["out"])
    assert described["module"] == "ssvid_dummy.tasks.still"
    assert [option["name"] for option in described["options"]] == ["num_frames", "frame_px"]


def test_its_broken_file_is_named_in_the_list_and_beside_an_unknown_name(found):
    complaint = (
        "ssvid_dummy.tasks.broken (of package ssvid-dummy) failed to import: "
        "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"
    )
    assert f"broken plug-in: {complaint}" in found["tasks"]["err"]
    assert found["tasks dummy_stil"]["code"] == 2
    assert "Did you mean 'dummy_still'?" in found["tasks dummy_stil"]["err"]
    assert complaint in found["tasks dummy_stil"]["err"]
    assert "half_registered" not in found["tasks"]["out"]


def test_it_trains_exports_and_loads(found):
    assert found["steps"] == 2
    assert found["chance"] == {"accuracy": 0.5}
    assert found["export"]["code"] == 0, found["export"]["err"]
    assert found["class"] == "ssvid_dummy.network"
    assert found["same_weights"]


@pytest.fixture(scope="module")
def clashing(tmp_path_factory) -> Path:
    """A package whose task and network have names of ours."""
    site = tmp_path_factory.mktemp("clash")
    (site / "copycat.py").write_text(
        "from ssvid.backbones import Backbone, register_backbone\n"
        "from ssvid.tasks import PretextTask, register_task\n"
        "@register_backbone('tiny3d')\nclass Mine(Backbone):\n    pass\n"
    )
    (site / "copycat_task.py").write_text(
        "from ssvid.tasks import PretextTask, register_task\n"
        "@register_task('speediness')\nclass Fast(PretextTask):\n    pass\n"
    )
    info = site / "copycat-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: copycat\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ssvid.tasks]\na = copycat_task\n[ssvid.backbones]\nb = copycat\n")
    return site


def test_a_clash_with_ours_names_both_and_ends_with_2(clashing, python_with, tmp_path):
    done = python_with(clashing, CLASH, tmp_path)
    assert done.stdout.splitlines() == ["[2, 2, 2]"], done.stderr
    said = " ".join(done.stderr.split())
    assert "Traceback" not in said
    task, network, again = (part.strip() for part in said.split("ssvid: ")[1:])
    assert task == again
    for name in ("'speediness'", "copycat_task.Fast", "pretext_tasks.speediness.Speediness", "SSVID_PLUGINS=0"):
        assert name in task
    for name in ("'tiny3d'", "copycat.Mine", "ssvid.backbones.tiny3d.Tiny3D", "SSVID_PLUGINS=0"):
        assert name in network


def test_the_switch_that_the_error_names_ends_it(clashing, python_with, tmp_path):
    done = python_with(clashing, CLASH, tmp_path, SSVID_PLUGINS="0")
    assert done.stdout.splitlines()[-1] == "[0, 0, 0]", done.stderr
    assert done.stderr == ""
