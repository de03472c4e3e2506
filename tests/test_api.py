"""Python has the shape of the command line: a function per verb, the options' names, results that are JSON."""

import dataclasses
import importlib
import inspect
import json
import shutil
import subprocess
import sys

import pytest

import ssvid
from ssvid.cli import build_parser
from ssvid.cli.parser import Parser
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.video import content_id

VERBS = {
    "pretrain",
    "probe",
    "finetune",
    "retrieve",
    "track",
    "evaluate",
    "report",
    "audit",
    "speed",
    "embed",
    "export",
    "demo",
    "show",
    "diff",
}
OTHERS = {"load_backbone", "create_backbone", "list_backbones", "list_tasks", "list_recipes"}
OTHERS |= {"from_pretrained", "push_to_hub", "track_video", "Footage", "speed_curve", "speed_up"}
OTHERS |= {"fit_layers", "resume_layers", "preview_masks", "edit_layers", "compose_layers", "explain_layers"}
OTHERS |= {"LayerFootage", "LayerSettings", "Composition", "Edits"}
NOT_OPTIONS = {"help", "debug", "json"}  # how a result is shown; in Python it is an object
# ``ssvid track --video`` is a function of its own: its options are the fields of ``Footage``, and a protocol.
OF_FOOTAGE = {"video", "mask", "points", "truth", "decoder"}
# What only Python has: objects cannot be typed, and a caller says whether it wants to be told how far things are.
ONLY_IN_PYTHON = {"show_progress", "callbacks", "nested", "backbone_options", "program"}


def verbs() -> dict[str, Parser]:
    (action,) = [a for a in build_parser()._actions if isinstance(a.choices, dict)]
    return dict(action.choices)


def test_the_public_names_are_these():
    assert set(ssvid.__all__) == VERBS | OTHERS | {"__version__"}
    assert dir(ssvid) == sorted(ssvid.__all__)
    for name in VERBS | OTHERS:
        assert callable(getattr(ssvid, name)), name
        assert inspect.getdoc(getattr(ssvid, name)), name
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        ssvid.pretrian  # noqa: B018


def test_importing_ssvid_imports_nothing_heavy_and_no_room():
    code = "import sys, ssvid; print([m for m in ('torch', 'numpy', 'omegaconf', 'ssvid.recipe') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_no_import_of_a_room_hides_a_function():
    for room in {*ssvid._PUBLIC.values(), "ssvid.cli", "ssvid.exports"}:
        importlib.import_module(room)
    assert [name for name in ssvid._PUBLIC if not callable(getattr(ssvid, name))] == []
    assert not inspect.ismodule(ssvid.export)


def test_a_verb_that_makes_a_result_is_a_function():
    listings = {
        "data",
        "layers",
        "recipes",
        "tasks",
        "backbones",
        "evaluations",
        "doctor",
    }  # list_*, or an errand of the shell
    assert set(verbs()) - listings >= VERBS
    assert VERBS <= set(verbs())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_options_have_one_name_in_both(verb):
    parameters = inspect.signature(getattr(ssvid, verb)).parameters
    options = {action.dest: action for action in verbs()[verb]._actions if action.dest not in NOT_OPTIONS}
    if verb == "track":
        options = {name: action for name, action in options.items() if name not in OF_FOOTAGE | {"protocol"}}
    assert set(parameters) - ONLY_IN_PYTHON == set(options)
    for name, action in options.items():
        parameter = parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            assert action.nargs == "*"
        elif action.nargs == "?":
            assert parameter.default is action.default is None
        elif action.option_strings and not action.required:
            nothing = [] if isinstance(action.default, list) else action.default  # in Python, None or () name none
            assert (parameter.default or nothing) == action.default, f"{verb}: the default of {name}"
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY or name == "out"
        else:
            assert parameter.default is inspect.Parameter.empty, f"{verb}: {name} has a default"


def test_footage_has_the_names_of_its_options():
    actions = {action.dest: action for action in verbs()["track"]._actions}
    assert actions.keys() >= OF_FOOTAGE | {"protocol"}
    assert {field.name for field in dataclasses.fields(ssvid.Footage)} == {
        {"mask": "masks"}.get(name, name) for name in OF_FOOTAGE
    }
    parameters = set(inspect.signature(ssvid.track_video).parameters)
    assert parameters == {
        "footage",
        "protocol",
        "backbone",
        "backbone_name",
        "partial",
        "device",
        "out",
        "show_progress",
    }


# ---- what they return


def is_json(result) -> dict:
    """The result's plain form, after a round trip through JSON that changes nothing but tuples."""
    plain = result.as_dict()
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert set(again) == set(plain)
    assert str(result).strip()
    return again


@pytest.fixture(scope="module")
def labeled(video_folder, tmp_path_factory):
    """Eight labeled videos with their table, so that nothing has to be scanned."""
    root = tmp_path_factory.mktemp("api") / "videos"
    root.mkdir()
    rows = []
    for i in range(8):
        shutil.copy(video_folder / f"{3 * i:02d}.mp4", root / f"{i}.mp4")
        row = VideoRow(f"{i}.mp4", 40, 25.0, 48, 64, label="ab"[i % 2], split="train" if i < 5 else "test")
        rows.append(VideoRow(**{**vars(row), "decoders_ok": ("pyav",), "content_id": content_id(root / row.path)}))
    Manifest(root, tuple(rows)).save(root / "manifest.csv")
    return root


@pytest.fixture(scope="module")
def trained(labeled):
    """Two steps of pretraining."""
    return ssvid.pretrain(
        "smoke/speediness",
        f"data.root={labeled}",
        "backbone.options.width=2",
        optim={"epochs": 1, "warmup_epochs": 0},
        task={"options": {"num_frames": 8}},
        loader={"global_batch": 2, "workers_per_device": 0},
        trainer={"accelerator": "cpu", "max_steps": 1},
        run_dir=labeled.parent / "run",
        show_progress=False,
    )


def test_pretrain_and_diff(trained, labeled):
    plain = is_json(trained)
    assert plain["num_steps"] == 1
    shutil.copytree(trained.run_dir, labeled.parent / "copy")
    result = ssvid.diff(trained.run_dir, labeled.parent / "copy")
    assert is_json(result)["same"] is True
    assert result.is_same
    assert result.metrics["num_steps"] == (1, 1)


@pytest.mark.slow  # an export of tiny3d compiles a program
def test_embed_export_and_load(trained, labeled):
    plain = is_json(ssvid.export(trained.run_dir, labeled.parent / "export"))
    result = ssvid.embed(
        labeled, backbone=labeled.parent / "export", out=labeled.parent / "f.npz", crop_px=24, num_frames=8, workers=0,
        show_progress=False,
    )  # fmt: skip
    assert is_json(result)["num_clips"] == 8
    assert result.weights_sha256 == plain["weights_sha256"] == result.metadata()["weights_sha256"]
    assert len(result.arrays()["path"]) == 8
    backbone = ssvid.load_backbone(labeled.parent / "export")
    assert backbone.info.name == "tiny3d"
    assert result.stages == {backbone.provenance["stage"]: backbone.info.stage(backbone.provenance["stage"]).channels}


def test_embed_from_a_run(trained, labeled):
    result = ssvid.embed(
        labeled, backbone=trained.run_dir, out=labeled.parent / "run.npz", crop_px=24, num_frames=8, workers=0,
        show_progress=False,
    )  # fmt: skip
    assert is_json(result)["num_clips"] == 8
    assert len(result.arrays()["path"]) == 8


def test_probe_takes_the_options_of_the_verb(labeled):
    result = ssvid.probe(
        "demo/probe", f"data.root={labeled}", backbone="random", backbone_name="tiny3d", device="cpu",
        out=labeled.parent / "probed", show_progress=False,
        features={"num_clips": 1, "crop_px": 24, "resize_px": 28, "workers": 0, "stages": "stage2"},
        probe={"knn_ks": [2], "num_holdouts": 1},
    )  # fmt: skip
    assert {row["name"] for row in is_json(result)["rows"]} >= {"random"}
    assert ssvid.diff(labeled.parent / "probed", labeled.parent / "probed").is_same


def test_retrieve_takes_the_options_of_the_verb_and_writes_a_page(labeled):
    out = labeled.parent / "retrieved"
    result = ssvid.retrieve(
        "retrieve/folder", f"data.root={labeled}", "data.name=manifest", backbone="random", backbone_name="tiny3d",
        device="cpu", out=out, show_progress=False,
        features={"num_clips": 1, "crop_px": 24, "resize_px": 28, "workers": 0, "stages": "stage2", "num_frames": 8},
        retrieval={"ks": [1, 2], "num_shown": 2},
    )  # fmt: skip
    plain = is_json(result)
    assert {row["metric"] for row in plain["rows"]} == {"recall_at_1", "recall_at_2"}
    assert {row["name"] for row in plain["rows"]} >= {"random", "single frame", "shuffled frames", "histograms"}
    page, picture = result.pictures
    assert page.read_text(encoding="utf-8").count("<figure") == 2 * 6
    assert picture.read_bytes().startswith(b"<svg")
    assert ssvid.diff(out, out).is_same


def test_show_and_the_lists():
    result = ssvid.show("smoke/speediness", "seed=3", optim={"epochs": 2})
    assert is_json(result)["seed"] == 3
    assert result.resolved["optim"]["epochs"] == 2
    assert any("trained parameters" in fact for fact in result.facts)
    assert "speediness" in ssvid.list_tasks("speed*")
    assert "tiny3d" in ssvid.list_backbones()
    assert "demo/speediness" in [recipe.name for recipe in ssvid.list_recipes()]
    assert ssvid.create_backbone("tiny3d", width=2).info.options["width"] == 2


def test_what_the_demo_returns_is_json(tmp_path):
    import numpy as np

    from ssvid.programs.demo import DemoResult
    from ssvid.results.rows import Difference, ResultRow

    row = ResultRow("pretrained", "probe_top1", 0.5, (0.25, 0.75), 0.1, np.array([True, False]), ("a", "b"), {})
    difference = {"pretrained - random": Difference(0.1, (0.0, 0.2), 2)}
    result = DemoResult([row], difference, tmp_path, {"pretrained": {"accuracy": 0.9}}, {"videos": 1.0})
    assert is_json(result)["rows"][0]["value"] == 0.5
    assert inspect.signature(ssvid.demo).return_annotation == "DemoResult | SpeedDemoResult | LayersDemoResult"
