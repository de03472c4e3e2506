"""Videos from elsewhere, measured beside the held-out ones: the same numbers on a copy, and nothing that is trained moves."""

import json
import re
import shutil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import ssvid
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.train.module import VALIDATIONS
from ssvid.train.progress import metrics_text
from ssvid.types import ClipPlan, Ticket
from ssvid.video import content_id, write_video
from ssvid.weights.checkpoints import read_checkpoint

NUM_TRAIN, NUM_VAL = 12, 10
SMALL = {
    "kind": "pretrain",
    "seed": 3,
    "data": {"name": "manifest", "root": "???", "out_of_domain": {"name": "manifest"}},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 2, "warmup_epochs": 1, "weight_decay": 0.05},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "save_every_steps": 1, "log_every_steps": 1},
}


def frames_of(seed, count=36, size=(32, 40)):
    """A bright square that slides over a ground of noise, one pixel a frame."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
    frames = []
    for t in range(count):
        frame = ground.copy()
        left = (seed + t) % (size[1] - 10)
        frame[8:18, left : left + 10] = 250
        frames.append(frame)
    return frames


def row_of(folder, name, frames, fps, split):
    """Write a video losslessly; its line of the manifest, as an index would find it."""
    write_video(folder / name, frames, fps, crf=0)
    height, width = frames[0].shape[:2]
    identity = content_id(folder / name)
    return VideoRow(name, len(frames), fps, height, width, split=split, decoders_ok=("pyav",), content_id=identity)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """``own``: splits train and val; ``copy``: the files of val; ``doubled``: each frame of val twice."""
    root = tmp_path_factory.mktemp("elsewhere")
    rows = {"own": [], "copy": [], "doubled": []}
    for number in range(NUM_TRAIN + NUM_VAL):
        name, frames = f"{number:02d}.mp4", frames_of(number)
        split = "train" if number < NUM_TRAIN else "val"
        rows["own"].append(row_of(root / "own", name, frames, 25.0, split))
        if split == "val":
            (root / "copy").mkdir(exist_ok=True)
            shutil.copy(root / "own" / name, root / "copy" / name)
            rows["copy"].append(rows["own"][-1])
            twice = [frame for frame in frames for _ in range(2)]
            rows["doubled"].append(row_of(root / "doubled", name, twice, 50.0, split))
    for folder, found in rows.items():
        Manifest(root / folder, tuple(found)).save(root / folder / "manifest.csv")
    return root


def run(videos, folder, *overrides, elsewhere="", **options):
    where = [f"data.out_of_domain.root={videos / elsewhere}"] if elsewhere else ["data.out_of_domain.name=folder"]
    overrides = [f"data.root={videos / 'own'}", *where, *overrides]
    return ssvid.pretrain(SMALL, *overrides, run_dir=folder, **{"show_progress": False} | options)


def lines_of(result):
    """What a run logged, without its speeds."""
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines]
    return [line for line in kept if line.keys() - {"step", "epoch"}]


def weights_of(result):
    found = read_checkpoint(result.checkpoint)
    return found.backbone_state | found.task_state


@pytest.fixture(scope="module")
def on_a_copy(videos, tmp_path_factory):
    return run(videos, tmp_path_factory.mktemp("runs") / "copy", elsewhere="copy")


def test_a_copy_of_the_held_out_videos_gives_their_numbers(on_a_copy):
    assert on_a_copy.out_of_domain == on_a_copy.metrics
    assert {"accuracy", "auc", "loss"} <= on_a_copy.metrics.keys()


def test_each_validation_logs_both_side_by_side(on_a_copy):
    validations = [line for line in lines_of(on_a_copy) if "val/accuracy" in line]
    assert len(validations) == 2
    for line in validations:
        elsewhere = {k.removeprefix("val_ood/"): v for k, v in line.items() if k.startswith("val_ood/")}
        assert elsewhere == {name: line[f"val/{name}"] for name in on_a_copy.metrics}
    # What is measured without labels, and advised, rests on the held-out videos alone.
    assert {line["val/num_videos"] for line in validations} == {NUM_VAL}


def test_the_run_folder_keeps_table_numbers_and_pictures(on_a_copy):
    results = json.loads((on_a_copy.run_dir / "results.json").read_text())
    assert results["out_of_domain"] == on_a_copy.out_of_domain
    assert "val_ood accuracy" in str(on_a_copy)
    assert len((on_a_copy.run_dir / "out_of_domain.csv").read_text().splitlines()) == 1 + NUM_VAL
    meta = read_checkpoint(on_a_copy.checkpoint).meta
    assert meta["out_of_domain_metrics"] == on_a_copy.out_of_domain
    pictures = {path.name for path in (on_a_copy.run_dir / "pictures").iterdir()}
    assert {"val_epoch0001_clips.png", "val_ood_epoch0001_clips.png"} <= pictures


def test_each_second_frame_of_doubled_videos_gives_the_numbers_of_the_originals(videos, tmp_path, on_a_copy):
    doubled = run(videos, tmp_path / "run", "data.out_of_domain.frame_step=2", elsewhere="doubled")
    assert doubled.out_of_domain == on_a_copy.metrics
    whole = run(videos, tmp_path / "whole", elsewhere="doubled")
    assert whole.out_of_domain != whole.metrics


def test_measuring_elsewhere_changes_nothing_that_is_trained(videos, tmp_path, on_a_copy):
    alone = run(videos, tmp_path / "run")
    assert alone.out_of_domain == {}
    assert alone.metrics == on_a_copy.metrics
    a, b = weights_of(alone), weights_of(on_a_copy)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert "val_ood" not in (alone.run_dir / "metrics.jsonl").read_text()
    assert not (alone.run_dir / "out_of_domain.csv").exists()


class Break(pl.Callback):
    """Ends the process's run in the middle of an epoch, after its checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("broken off")


@pytest.mark.parametrize("step", [2, 5])  # in the first epoch; in the second, after a validation
def test_a_resumed_run_logs_the_same_numbers(videos, tmp_path, on_a_copy, step):
    with pytest.raises(RuntimeError, match="broken off"):
        run(videos, tmp_path / "run", elsewhere="copy", callbacks=[Break(step)])
    resumed = run(videos, tmp_path / "run", elsewhere="copy", resume=True)
    assert lines_of(resumed) == lines_of(on_a_copy)
    assert resumed.out_of_domain == on_a_copy.out_of_domain
    a, b = weights_of(resumed), weights_of(on_a_copy)
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_a_finished_run_that_is_resumed_still_knows_both(videos, tmp_path, on_a_copy):
    shutil.copytree(on_a_copy.run_dir, tmp_path / "run")
    again = run(videos, tmp_path / "run", elsewhere="copy", resume=True)
    assert (again.metrics, again.out_of_domain) == (on_a_copy.metrics, on_a_copy.out_of_domain)


def test_the_progress_line_shows_both_beside_chance():
    values = {"train/loss": 0.5, "train/accuracy": 0.9, "val/accuracy": 0.85, "val_ood/accuracy": 0.6}
    text = metrics_text(values, {"accuracy": 0.5}, ("train", *VALIDATIONS))
    assert text == "accuracy train 0.900 val 0.850 val_ood 0.600 (chance 0.50)"


# ---- what the clip maker sees


class Frames:
    """Takes all frames there are."""

    min_frames = 3

    def plan(self, video, rng, batch_rng):
        return ClipPlan((np.arange(video.num_frames),), {"fps": np.array(video.fps)})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"clip": views_TCHW[0]}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """One video of 11 gray frames; frame i has the level 20 i."""
    root = tmp_path_factory.mktemp("counted")
    frames = [np.full((16, 16, 3), 20 * i, np.uint8) for i in range(11)]
    return Manifest(root, (row_of(root, "a.mp4", frames, 240.0, ""),))


@pytest.mark.parametrize(("step", "expected"), [(1, range(11)), (2, [0, 2, 4, 6, 8, 10]), (4, [0, 4, 8])])
def test_a_frame_step_leaves_frames_out_as_if_they_were_not_there(counted, step, expected):
    dataset = ClipDataset(counted, counted.rows, Frames(), seed=0, frame_step=step)
    info = dataset.video_info(0)
    assert (info.num_frames, info.fps) == (len(expected), 240 / step)
    (sample,) = dataset[(Ticket(1, 0, 0, 0),)]
    levels = sample["clip"].float().mean(dim=(1, 2, 3))
    assert torch.allclose(levels, 20.0 * torch.tensor(list(expected)), atol=3)


def test_a_video_that_the_frame_step_makes_too_short_is_said_to_be(counted):
    assert ClipDataset(counted, counted.rows, Frames(), seed=0, frame_step=5).too_short == []
    with pytest.raises(DataError, match="the task needs 13 frames of one video, the longest of 1 has 11"):
        ClipDataset(counted, counted.rows, Frames(), seed=0, frame_step=6)


# ---- mistakes


@pytest.mark.parametrize(
    ("overrides", "elsewhere", "error", "text"),
    [
        (["data.split=train", "data.val_fraction=0"], "doubled", DataError, "is measured beside held-out videos of data.root"),
        (["data.out_of_domain.split=train"], "own", DataError, "12 of 12 videos of data.out_of_domain are also trained on"),
        (["data.out_of_domain.split=trian"], "own", DataError, "Did you mean 'train'"),
        (["data.out_of_domain.frame_step=0"], "copy", RecipeError, "frame_step (0) must be at least 1"),
        (["data.out_of_domain.split=val"], "", RecipeError, "split ('val') does nothing while data.out_of_domain.root is"),
        (["data.out_of_domain.name=folder", "data.out_of_domain.list=x"], "copy", RecipeError, "list ('x') does nothing where"),
        (["data.out_of_domain.frame_step=9"], "doubled", DataError, "none of its 10 videos can be read and is as long as"),
        ([], "nowhere", DataError, "Set data.out_of_domain.root=FOLDER"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_a_folder_is_made(
    videos, tmp_path, overrides, elsewhere, error, text
):
    with pytest.raises(error, match=re.escape(text)):
        run(videos, tmp_path / "run", *overrides, elsewhere=elsewhere)
    assert not (tmp_path / "run").exists()


def test_a_probe_takes_no_videos_from_elsewhere(videos):
    with pytest.raises(RecipeError, match=r"data\.out_of_domain\.root .* does nothing where kind is 'probe'"):
        ssvid.show("probe/folder", f"data.out_of_domain.root={videos}")
