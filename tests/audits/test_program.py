"""``ssvid audit`` from end to end: the same numbers whatever the workers, files, JSON, and every mistake in one paragraph."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ssvid
from ssvid.audits.counterfactuals import NAMES
from ssvid.audits.measuring import Questions
from ssvid.cli import main
from ssvid.cli.audit import recipe_and_overrides
from ssvid.data.manifest import Manifest
from ssvid.errors import CheckpointError
from ssvid.programs.audit import _spread
from tests.cli.test_cli import told

from . import planted

QUICK = {"num_clips": 8, "batch_size": 8, "workers": 0, "device": "cpu", "show_progress": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network of two steps on twelve moving videos."""
    folder = tmp_path_factory.mktemp("audited")
    manifest = planted.write_videos(folder / "videos", planted.moving, count=12)
    recipe = planted.recipe(manifest.root, epochs=2) | {"trainer": {"accelerator": "cpu", "max_steps": 2}}
    ssvid.pretrain(recipe, run_dir=folder / "run", show_progress=False)
    return folder / "run"


def numbers(result):
    return [(row.label, row.measured, row.difference, row.difference_interval) for row in result.report.all_rows]


def test_of_more_videos_than_clips_so_many_are_read_evenly(run, tmp_path):
    asked = {**QUICK, "num_clips": 3, "only": "static", "split": "all", "out": tmp_path / "few"}
    written = json.loads(ssvid.audit(checkpoint=run, **asked).path.read_text())
    assert (written["num_videos"], written["num_clips"]) == (3, 3)
    rows = [SimpleNamespace(path=str(i)) for i in range(12)]
    assert [row.path for row in _spread(rows, 3)] == ["0", "6", "11"]
    assert _spread(rows, 12) == rows


def test_everything_is_measured_and_written(run):
    result = ssvid.audit(checkpoint=run, **QUICK)
    assert result.path == run / "audit" / "audit.json"
    written = json.loads(result.path.read_text())
    assert {row["name"] for row in written["rows"]} == set(NAMES)
    assert (written["num_videos"], written["num_clips"]) == (4, 8)
    assert {k: v for k, v in written["intervals"].items() if k != "method"} == {
        "unit": "group",
        "num_groups": 4,
        "level": 0.95,
    }
    assert written["must_fall"] and written["must_hold"]
    assert all(row["verdict"] and row["share_changed"] > 0 for row in written["all_rows"])
    assert sum(row["name"] == "occluded" for row in written["all_rows"]) == 16
    assert any("4 videos are few" in note for note in written["notes"])
    picture = np.asarray(Image.open(result.picture))
    rows = 1 + len({(r["name"], r["value"]) for r in written["all_rows"] if r["name"] != "occluded"}) + 1
    assert picture.shape[0] == rows * 75
    assert picture.std() > 20
    text = str(result)
    assert "conclusion:" in text and "in words:" in text and str(result.path) in text
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["task"] == "speediness"


def test_static_clips_of_a_network_of_differences_are_all_alike(run):
    """Its input is zero then: both versions get one answer, and half of the answers are right."""
    report = ssvid.audit(checkpoint=run, only="static", **QUICK).report
    assert report.rows[0].measured == 0.5
    low, high = report.rows[0].measured_interval
    assert low < 0.5 < high  # four videos agree, and a fifth need not


def test_workers_and_batches_do_not_change_a_number(run, tmp_path):
    options = {"only": "shuffled,noise", "out": tmp_path / "a"}
    alone = ssvid.audit(checkpoint=run / "checkpoints" / "last.ckpt", **{**QUICK, **options})
    again = ssvid.audit(checkpoint=run, **{**QUICK, **options, "workers": 1, "batch_size": 3, "out": tmp_path / "b"})
    assert numbers(alone) == numbers(again)


def test_the_clean_value_is_what_a_loop_over_the_clips_gives(run):
    """Against the task and the network called by hand, clip by clip."""
    import torch

    from ssvid.recipe.building import build_networks
    from ssvid.recipe.load import load_recipe
    from ssvid.tasks import BatchRandom
    from ssvid.types import Ticket, batch_rng, sample_rng
    from ssvid.video import open_video, read_clips
    from ssvid.weights.checkpoints import read_checkpoint

    report = ssvid.audit(checkpoint=run, only="static", **QUICK).report
    trained = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config = load_recipe(trained.meta["recipe"]).recipe
    backbone, task = build_networks(config)
    backbone.load_state_dict(trained.backbone_state)
    task.load_state_dict(trained.task_state)
    backbone.eval(), task.eval()
    manifest = Manifest.load(run.parent / "videos" / "manifest.csv")
    right = []
    for index, row in enumerate(manifest.select("val").rows):
        for clip in range(2):
            ticket = Ticket(4, 0, 0, index, clip)
            rngs = sample_rng(config.seed, ticket), batch_rng(config.seed, ticket)
            info = row.video_info(manifest.root)
            maker = task.clip_maker(training=False)
            plan = maker.plan(info, *rngs)
            with open_video(info.path, "pyav", info=info) as reader:
                sample = maker.transform(tuple(read_clips(reader, plan.views)), plan, *rngs)
            batch = {name: value[None] for name, value in sample.items()}
            with torch.no_grad():
                output = task(task.augment(batch, BatchRandom.of(config.seed, [ticket])), backbone)
            right.append(float(output.metrics["accuracy"]))
    assert report.standard.clean == pytest.approx(np.mean(right))
    assert report.num_clips == len(right)


def test_a_metric_of_the_whole_epoch_can_be_asked_for(run):
    report = ssvid.audit(checkpoint=run, only="static", metric="auc", **QUICK).report
    assert report.standard.metric == "auc"
    assert report.rows[0].measured == pytest.approx(0.5)


def test_all_clips_are_asked_about_evenly():
    batches = Questions(Manifest(".", ()), (), num_clips=50, batch=16).batches(num_videos=7)
    tickets = [ticket for batch in batches for group in batch for ticket in group]
    assert len(tickets) == len({t._replace(step=0) for t in tickets}) == 56
    assert {t.index for t in tickets} == set(range(7)) and {t.clip for t in tickets} == set(range(8))
    assert all(len({t.index for t in group}) == 1 for batch in batches for group in batch)
    assert all(t.step == step for step, batch in enumerate(batches) for group in batch for t in group)
    assert max(sum(len(group) for group in batch) for batch in batches) <= 16


def test_the_command_takes_its_recipe_from_the_checkpoint(run, capsys, tmp_path):
    options = ["--num-clips", "12", "--only", "gray", "--workers", "0", "--device", "cpu", "--out", str(tmp_path)]
    assert (
        main(["audit", "--checkpoint", str(run), "data.segment_seconds=20", *options, "--split", "all", "--json"]) == 0
    )
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["num_videos"] == 12
    assert document["recipe"]["data"]["segment_seconds"] == 20
    assert any("8 of 12 videos were trained on" in note for note in document["notes"])
    assert any(note.startswith("not measured: static, noise") for note in document["notes"])
    assert "passes over the clips: 2/2" in captured.err


@pytest.mark.parametrize(
    ("words", "recipe", "rest"),
    [
        (["demo/speediness", "a=1"], "demo/speediness", ["a=1"]),
        (["a=1", "b=2"], None, ["a=1", "b=2"]),
        (["a=1", "demo/speediness"], "demo/speediness", ["a=1"]),
        ([], None, []),
    ],
)
def test_the_recipe_is_told_from_the_settings(words, recipe, rest):
    assert recipe_and_overrides(words) == (recipe, rest)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--only", "statik"], ["counterfactual ('statik') is unknown", "Did you mean 'static'?"]),
        (["--metric", "acuracy"], ["metric ('acuracy') has no chance level", "Did you mean 'accuracy'?"]),
        (["--split", "tset"], ["split ('tset') must be one of the manifest's splits"]),
        (["data.root=nowhere"], ["nowhere) must be a folder"]),
        (["smoke/speediness", "backbone.name=r3d_18", "backbone.options={}"], ["data.root is not set"]),
        (["task.options.num_frames=64"], ["is readable and has the 127 frames that the task needs"]),
        (["backbone.options.width=2"], ["do not fit backbone tiny3d", "mismatched"]),
    ],
)
def test_mistakes_are_told_in_one_paragraph(run, capsys, argv, parts):
    message = told(capsys, "audit", *argv, "--checkpoint", str(run), "--workers", "0", "--device", "cpu")
    for part in parts:
        assert part in message


def test_a_checkpoint_that_cannot_be_audited(run, capsys, tmp_path):
    export = tmp_path / "export"
    export.mkdir()
    (export / "config.json").write_text("{}")
    assert "is an export, and the task's head is not in it" in told(capsys, "audit", "--checkpoint", str(export))
    assert "is no run folder" in told(capsys, "audit", "--checkpoint", str(tmp_path))
    assert "is not a file" in told(capsys, "audit", "--checkpoint", str(tmp_path / "none.ckpt"))
    recipe = planted.recipe(run.parent / "videos") | {"backbone": {"name": "r3d_18"}}
    with pytest.raises(CheckpointError, match=r"backbone.name \(r3d_18\) must be that of the checkpoint, tiny3d"):
        ssvid.audit(recipe, checkpoint=run, **QUICK)


def test_nothing_held_out_is_a_mistake(run, capsys):
    folder = run.parent / "videos"
    rows = [row for row in Manifest.load(folder / "manifest.csv").rows if row.split == "train"]
    Manifest(folder, tuple(rows)).save(folder / "train.csv")
    override = [f"data.list={folder / 'train.csv'}", "data.val_fraction=0"]
    message = told(capsys, "audit", *override, "--checkpoint", str(run), "--workers", "0", "--device", "cpu")
    assert "no video is held out: data.val_fraction is 0" in message
    assert "--split" in message
