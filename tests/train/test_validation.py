"""What is measured on held-out videos: by any number of processes, by a task without metrics, on few videos."""

import multiprocessing
import traceback

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torchmetrics.classification import BinaryAUROC

import ssvid
from ssvid.data.feed.module import clips_for
from ssvid.data.feed.sampler import EvalBatches
from ssvid.errors import RecipeError
from ssvid.tasks import register_task, tasks
from ssvid.testing import check_task
from ssvid.train.module import _counted, _Measured, _Measures, _of_all_ranks
from ssvid.types import Stream, TaskOutput

SMALL = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"name": "folder", "root": "???", "val_fraction": 0.2, "index_workers": 1},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"base_lr": 0.05, "epochs": 1, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False, "max_steps": 2},
    "monitor": {"features": False},
}

# ---- any number of videos on any number of processes


def measured(numbers):
    """What some samples come to: a value and a pair of scores each, drawn by their number."""
    if not numbers:
        return None
    draws = [np.random.default_rng(n).random(3).astype(np.float32) for n in numbers]
    scores = torch.tensor(np.stack([d[1:] for d in draws])).flatten()
    labels = torch.tensor([0, 1] * len(numbers))
    return _Measured(
        list(numbers), torch.tensor(1.0), {"right": torch.tensor([d[0] for d in draws])}, {"auc": (scores, labels)}
    )


def validate(num_videos, world, rank, batch=2):
    """One validation of a rank as the loop runs it; on one process without a group too."""
    measures = _Measures({"auc": BinaryAUROC()}, torch.device("cpu"))
    for group in EvalBatches(num_videos, batch, world_size=world, rank=rank):
        mine = [t.index for (t,) in group if t.attempt != EvalBatches.PADDING]
        for part, _ in _of_all_ranks((measured(mine), False)):
            if part is not None:
                measures.add(part)
    return measures.results(), measures.counts()


def on_rank(rank, world, store, queue):
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        queue.put((rank, [validate(num, world, rank) for num in range(1, 6)]))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        queue.put((rank, traceback.format_exc()))


@pytest.mark.parametrize("world", [2, 3])
def test_one_to_five_held_out_videos_measure_the_same_on_any_number_of_processes(world, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    ranks = [context.Process(target=on_rank, args=(rank, world, tmp_path / "store", queue)) for rank in range(world)]
    for process in ranks:
        process.start()
    found = dict(queue.get() for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    for num, alone in enumerate([validate(num, 1, 0) for num in range(1, 6)], start=1):
        for rank in range(world):
            results, counts = found[rank][num - 1]
            assert results == pytest.approx(alone[0], rel=1e-6), (num, rank)
            assert counts == alone[1] == {"num_videos": num, "num_positive/auc": num, "num_negative/auc": num}


def test_a_sample_of_weight_0_is_not_measured():
    batch = {"weight": torch.tensor([1.0, 0.0, 1.0]), "clips": torch.arange(6).reshape(3, 2), "unreadable": []}
    kept = _counted(batch)
    assert kept["clips"].tolist() == [[0, 1], [4, 5]]
    assert kept["unreadable"] == []
    whole = {"weight": torch.ones(2), "clips": torch.zeros(2)}
    assert _counted(whole) is whole


def test_nothing_measured_is_no_number():
    assert _Measures({"auc": BinaryAUROC()}, torch.device("cpu")).results() == {}


# ---- several clips of few videos


@pytest.mark.parametrize(("num_videos", "clips"), [(0, 8), (1, 8), (4, 8), (5, 7), (7, 5), (16, 2), (31, 2), (32, 1)])
def test_few_videos_are_measured_on_several_clips_each(num_videos, clips):
    assert clips_for(num_videos) == clips


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_clip_of_each_video_is_measured_once_whatever_the_number_of_ranks(world):
    seen = [
        (t.index, t.clip)
        for rank in range(world)
        for group in EvalBatches(5, 2, stream=Stream.VAL, world_size=world, rank=rank, num_clips=3)
        for (t,) in group
        if t.attempt != EvalBatches.PADDING
    ]
    assert sorted(seen) == [(i, k) for i in range(5) for k in range(3)]


# ---- a task without metrics of single samples


class OnlyAuc(tasks.get("speediness")):
    """A stranger's task: all that it measures is of whole validations."""

    def chance(self):
        return {"auc": 0.5}

    def epoch_metrics(self):
        return {"auc": BinaryAUROC()}

    def forward(self, batch, backbone):
        output = super().forward(batch, backbone)
        return TaskOutput(output.loss, {}, {k: v for k, v in output.scores.items() if k == "auc"}, output.extras)


@pytest.fixture
def only_auc():
    register_task("only_auc")(OnlyAuc)
    yield
    tasks._entries.pop("only_auc", None)


@pytest.mark.parametrize(
    "chosen",
    [
        {"task": SMALL["task"] | {"name": "only_auc"}},
        {"tasks": [SMALL["task"] | {"name": "only_auc"}, SMALL["task"]]},
    ],
    ids=["alone", "of several"],
)
def test_a_task_may_have_no_metric_of_single_samples(only_auc, video_folder, tmp_path, chosen):
    check_task("only_auc")
    recipe = {key: value for key, value in SMALL.items() if key != "task"} | chosen
    whole = ["trainer.max_steps=-1", "loader.global_batch=8"]
    run = ssvid.pretrain(recipe, f"data.root={video_folder}", *whole, run_dir=tmp_path / "run", show_progress=False)
    name = "auc" if "task" in chosen else "only_auc/auc"
    assert 0 <= run.metrics[name] <= 1
    assert run.advice["best"]["num_videos"] == run.advice["best"]["num_positive/" + name] > 0


@pytest.mark.parametrize(("name", "nearest"), [("acuracy", "accuracy"), ("perplexity", "")])
def test_an_unknown_best_metric_is_refused_in_the_first_step(video_folder, tmp_path, name, nearest):
    watch = FirstBatch()
    with pytest.raises(RecipeError, match=rf"monitor.best_metric \('{name}'\).*{nearest}.*auc"):
        ssvid.pretrain(
            SMALL,
            f"data.root={video_folder}",
            f"monitor.best_metric={name}",
            run_dir=tmp_path / "run",
            callbacks=[watch],
            show_progress=False,
        )
    assert len(watch.first) == 1


# ---- the first picture


class FirstBatch(pl.Callback):
    """Notes which batch was drawn."""

    def __init__(self):
        self.drawn = []

    def on_train_start(self, trainer, pl_module):
        draw = pl_module.task.visualize

        def visualize(batch, output):
            self.drawn.append([row[3] for row in batch["tickets"].tolist()])
            return draw(batch, output)

        pl_module.task.visualize = visualize
        self.first = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.first.append([row[3] for row in batch["tickets"].tolist()])


def test_the_first_picture_of_accumulated_batches_is_of_the_first(video_folder, tmp_path):
    watch = FirstBatch()
    more = ["trainer.accumulate=2", "trainer.pictures=true", "data.val_fraction=0"]
    ssvid.pretrain(
        SMALL, f"data.root={video_folder}", *more, run_dir=tmp_path / "run", callbacks=[watch], show_progress=False
    )
    assert watch.drawn == watch.first[:1]
    assert len(watch.first) == 4
    assert list((tmp_path / "run" / "pictures").glob("train_first_batch_*.png"))
