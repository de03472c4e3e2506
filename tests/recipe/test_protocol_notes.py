"""The hash beside a number: it tells two ways of measuring apart, and nothing else does."""

import copy
import json
from dataclasses import asdict

import numpy as np
import pytest

import ssvid
from ssvid.errors import RecipeError
from ssvid.features.protocol import ProbeProtocol
from ssvid.recipe.check import build_defaults, group_at, leaf_paths, marks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.protocol_notes import HASH_VERSION, brought_up, protocol_note, settings_sha256
from ssvid.recipe.schema import KINDS
from ssvid.results.reading import protocol_of
from ssvid.results.rows import ResultRow
from ssvid.settings import OLD_OPTIM, as_older, as_today, without_speed
from tests.programs.test_evaluate import QUICK, checkpoint, ucf  # noqa: F401

EVALUATIONS = ("probe", "retrieve", "finetune")
BESIDE = ("kind", "protocol", "data", "seed", "seeds", "backbone")  # said beside the number by themselves


def flipped(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 7] if isinstance(value, list | tuple) else f"{value}x"


def with_value(values, path, value):
    changed = copy.deepcopy(values)
    *groups, key = path.split(".")
    at = changed
    for group in groups:
        at = at[group]
    at[key] = value
    return changed


def leaves(kind):
    return [path for path in leaf_paths(KINDS[kind]) if path.partition(".")[0] not in BESIDE]


def value_at(values, path):
    for key in path.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_every_setting_is_in_the_hash_unless_its_field_says_that_no_number_depends_on_it(kind):
    whole = build_defaults(KINDS[kind])
    base, marked = settings_sha256(whole), []
    for path in leaves(kind):
        other = settings_sha256(with_value(whole, path, flipped(value_at(whole, path))))
        if marks(KINDS[kind], path).get("speed_only"):
            marked.append(path)
            assert other == base, path
        else:
            assert other != base, path
    assert len(leaves(kind)) - len(marked) >= 12
    assert "baselines.histograms" in marked


def test_what_a_training_depends_on_is_in_the_hash():
    """A batch of the training, its precision, its steps and its processes are numbers; how it is logged is not."""
    whole = build_defaults(KINDS["finetune"])
    base = settings_sha256(whole)
    for path, value in (
        ("finetune.batch_size", 8), ("trainer.max_steps", 5), ("trainer.precision", "bf16"), ("trainer.accumulate", 4),
        ("trainer.devices", "2"), ("trainer.num_nodes", 2),
    ):  # fmt: skip
        assert settings_sha256(with_value(whole, path, value)) != base, path
    for path, value in (("trainer.threads", 3), ("loader.workers_per_device", 0), ("logger.wandb", "offline")):
        assert settings_sha256(with_value(whole, path, value)) == base, path


def test_a_change_outside_the_settings_of_a_named_protocol_is_told():
    for said in ("trainer.precision=bf16", "trainer.max_steps=5", "finetune.mixup_alpha=0.2", "finetune.batch_size=8"):
        loaded = load_recipe("folder-finetune@1", ["data.root=x", said])
        path, _, value = said.partition("=")
        assert {p: str(used) for p, (_, used) in loaded.changed.items()} == {path: value}
        assert (
            protocol_note(loaded)["sha256"]
            != protocol_note(load_recipe("folder-finetune@1", ["data.root=x"]))["sha256"]
        )
    for said in ("trainer.threads=2", "loader.workers_per_device=0", "baselines.random=false", "seed=3"):
        assert load_recipe("folder-finetune@1", ["data.root=x", said]).changed == {}


def test_the_marks_of_a_group_hold_for_all_that_is_in_it():
    assert group_at(KINDS["finetune"], "logger") is not None
    kept = without_speed(KINDS["finetune"], build_defaults(KINDS["finetune"]))
    assert "logger" not in kept and "baselines" not in kept
    assert "workers_per_device" not in kept["loader"] and "batch_size" in kept["finetune"]


def test_numbers_of_older_files_get_the_hash_of_today_from_their_recipe():
    """The old hash was the same for every batch size of a training; the recipe in the file tells them apart."""
    notes = []
    for batch in (8, 32):
        loaded = load_recipe({"kind": "finetune", "data": {"root": "x"}, "finetune": {"batch_size": batch}})
        written = json.loads(json.dumps(loaded.resolved))
        del written["trainer"]["deterministic"]  # not there yet
        written["finetune"]["num_bootstrap"] = 2000  # gone since
        note = {"id": "", "changed": {}, "sha256": "0123456789abcdef"}
        row = ResultRow("pretrained", "finetune_top1", 1.0, (0, 1), 0.5, np.ones(1, bool), ("a",), {"protocol": note})
        notes.append(brought_up(row, written).context["protocol"])
        assert notes[-1]["sha256"] == protocol_note(loaded)["sha256"]
        assert brought_up(row, {}) is row  # a file without a recipe keeps the hash it has
    assert notes[0]["sha256"] != notes[1]["sha256"]
    assert {note["hash_version"] for note in notes} == {HASH_VERSION}


def test_what_an_older_version_wrote_of_an_optimizer_is_read_and_counts_as_the_same(tmp_path):
    today = load_recipe("vcop-finetune@1", ["data.root=/x"]).resolved
    old = as_older(today)
    assert "optim" not in old and old["finetune"]["optimizer"] == "sgd" and old["finetune"]["epochs"] == 150
    assert as_today(old)["optim"] == {k: v for k, v in today["optim"].items() if k in OLD_OPTIM.values()}
    assert load_recipe(as_today(old)).resolved == today
    (tmp_path / "recipe.resolved.yaml").write_text(json.dumps(old))
    assert load_recipe(tmp_path / "recipe.resolved.yaml").resolved == today  # of a run that goes on
    assert settings_sha256(old) == settings_sha256(today) == "1557c115e23e9778"
    for key in ("betas", "name"):
        assert settings_sha256(
            with_value(today, f"optim.{key}", [0.5, 0.9] if key == "betas" else "adam")
        ) != settings_sha256(old)
    with pytest.raises(
        RecipeError, match=r"finetune.milestones is called optim.step_epochs now. Write optim.step_epochs=..."
    ):
        load_recipe("finetune/folder", ["data.root=/x", "finetune.milestones=[3]"])


@pytest.mark.parametrize(("kind", "group"), zip(EVALUATIONS, ("probe", "retrieval", "finetune"), strict=True))
def test_a_setting_that_is_gone_is_told_in_a_recipe_and_left_out_of_what_was_recorded(tmp_path, kind, group):
    source = {"kind": kind, "data": {"root": "/x"}}
    today = load_recipe(source)
    old = copy.deepcopy(today.resolved) | {group: today.resolved[group] | {"num_bootstrap": 2000}}
    with pytest.raises(RecipeError, match=rf"{group}.num_bootstrap is gone: intervals are .* Take it out"):
        load_recipe(source, [f"{group}.num_bootstrap=500"])
    for name in ("recipe.resolved.yaml", "mine.yaml"):
        (tmp_path / name).write_text(json.dumps(old))
    assert load_recipe(tmp_path / "recipe.resolved.yaml").resolved == today.resolved
    with pytest.raises(RecipeError, match="Take it out"):
        load_recipe(tmp_path / "mine.yaml")
    assert settings_sha256(old) == settings_sha256(today.resolved)


def test_older_rows_without_a_hash_stand_in_one_column_with_those_of_today():
    def row(**more):
        settings = {**asdict(ProbeProtocol()), **more}
        return ResultRow("pretrained", "probe_top1", 1.0, (0, 1), 0.5, np.ones(1), ("a",), {"probe_protocol": settings})

    assert protocol_of(row(num_bootstrap=2000)) == protocol_of(row()) != protocol_of(row(num_holdouts=7))


# ---- what is marked changes no number


def flips(kind):
    """Every setting that is said to change no number, at another legal value."""
    return {
        "features": {"workers": 1, "batch_size": 5, "timeout_seconds": 60.0, "decoder": "pyav"},
        "baselines": {"single_frame": False, "shuffled_frames": False, "histograms": False},
    } | {
        "probe": {},
        "retrieve": {"retrieval": {"num_shown": 3}},
        "finetune": {
            "finetune": {"views_per_pass": 3},
            "loader": {
                "workers_per_device": 1, "prefetch_batches": 1, "timeout_seconds": 60.0, "decoder": "pyav",
                "max_unreadable_fraction": 0.5,
            },
            "optim": {"max_skipped_steps": 4},
            "trainer": {"log_every_steps": 1, "save_every_steps": 1, "threads": 2},
        },
    }[kind]  # fmt: skip


BASE = {
    "probe": {"features": QUICK["features"], "probe": QUICK["probe"]},
    "retrieve": {"features": QUICK["features"], "retrieval": {"ks": [1, 2]}},
    "finetune": {
        "finetune": {
            "num_frames": 4, "crop_px": 16, "resize_px": 18, "batch_size": 4, "num_clips": 2,
            "num_crops": 3, "holdout_fraction": 0.5,
        },
        "optim": {"epochs": 1},
        "loader": {"workers_per_device": 0},
        "trainer": {"threads": 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_what_is_marked_changes_no_number(ucf, tmp_path, kind):  # noqa: F811
    few = {"baselines": {"single_frame": False, "shuffled_frames": False}}
    where = {"kind": kind, "data": {"name": "ucf101", "root": str(ucf), "index_workers": 1}}
    weights = checkpoint(tmp_path, 0)
    found = []
    for number, more in enumerate((few, flips(kind))):
        own = {group: {**BASE[kind].get(group, {}), **more.get(group, {})} for group in {*BASE[kind], *more}}
        if kind == "finetune":
            own.pop("features", None)
        out = {"run_dir" if kind == "finetune" else "out": tmp_path / f"out{number}"}
        more_arguments = {} if kind == "finetune" else {"device": "cpu"}
        run = getattr(ssvid, kind)
        rows = run({**where, **own}, backbone=weights, show_progress=False, **out, **more_arguments).rows
        found.append({(r.name, r.metric): r for r in rows})
    shared = found[0].keys() & found[1].keys()
    assert len(shared) >= 4 and {name for name, _ in shared} >= {"pretrained", "random"}
    for key in shared:
        a, b = found[0][key], found[1][key]
        assert (a.value, a.interval, a.ids) == (b.value, b.interval, b.ids), key
        np.testing.assert_array_equal(a.correct_N, b.correct_N)
        assert a.context["protocol"]["sha256"] == b.context["protocol"]["sha256"]


def test_the_flips_above_are_all_that_is_marked():
    """But for what this machine has no other value of, and for what shows a training."""
    elsewhere = {
        "trainer.accelerator", "trainer.deterministic", "trainer.compile", "trainer.channels_last",
        "trainer.val_every_epochs", "trainer.pictures", "logger.wandb", "logger.project", "logger.tensorboard",
        "baselines.random", "baselines.single_frame", "baselines.shuffled_frames", "baselines.histograms",
        "baselines.trajectories",
    }  # fmt: skip
    for kind in EVALUATIONS:
        marked = {path for path in leaves(kind) if marks(KINDS[kind], path).get("speed_only")}
        tried = {f"{group}.{key}" for group, values in flips(kind).items() for key in values}
        assert marked - tried - elsewhere == set()


def test_rows_beside_are_called_baselines_and_what_was_recorded_before_is_read():
    with pytest.raises(RecipeError, match=r"anchors is called baselines now"):
        load_recipe("probe/folder", ["data.root=x", "anchors.floor=false"])
    with pytest.raises(RecipeError, match=r"anchors is called baselines now"):
        load_recipe({"kind": "probe", "data": {"root": "x"}, "anchors": {"floor": False}})
    with pytest.raises(RecipeError, match=r"baselines\.floor is called baselines\.histograms now"):
        load_recipe("probe/folder", ["data.root=x", "baselines.floor=false"])
    old = {"kind": "probe", "anchors": {"floor": False, "random": True}, "data": {"root": "x"}}
    assert as_today(old)["baselines"] == {"histograms": False, "random": True}
    assert "anchors" not in as_today(old)
