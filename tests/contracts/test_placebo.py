"""A placebo holds no true answer: counted over thousands of batches of every task."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ssvid
from ssvid.backbones.contract import without_weights
from ssvid.composite import CompositeConfig, CompositeTask, Member
from ssvid.data.feed.sampler import BatchLayout, largest_majority
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.tasks import permute_targets, strangers, tasks, videos_of
from ssvid.testing import SMALL_OPTIONS, check_task
from ssvid.types import Stream, Ticket, VideoInfo
from tests.contracts.test_tasks import NAMES

COUNTED = pytest.mark.parametrize("num_batches", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
VIDEO = VideoInfo("any.mp4", 200, 25.0, 48, 64)


def task_of(name, width=2, **options):
    factory = tasks.get(name)
    known = factory.Config.__dataclass_fields__
    small = {key: value for key, value in SMALL_OPTIONS.items() if key in known}
    sizes = {"width": width} if factory.example_backbone == "tiny3d" else {}
    return factory(factory.Config(**(small | options)), without_weights(factory.example_backbone, **sizes).info)


def layouts():
    """Videos of the samples of a batch: all different, two clips of each, unequal shares, as few as can be."""
    return [np.arange(5), np.arange(8) // 2, np.array([3, 3, 3, 7, 1, 1, 2]), np.array([4, 9])]


def in_batch(videos):
    return {"video_numbers": torch.from_numpy(videos)[:, None]}


# ---- counting --------------------------------------------------------------------------------------------------------


@COUNTED
@pytest.mark.parametrize(
    ("name", "keys"), [("colorization", ["target_colors"]), ("cycle_consistency", ["patch", "placement"])]
)
def test_no_answer_of_the_own_video_is_left(name, keys, num_batches):
    task, kept, given = task_of(name), 0, 0
    for number in range(num_batches):
        videos = layouts()[number % 4]
        batch = in_batch(videos) | {key: torch.arange(len(videos)) for key in keys}
        changed = task.placebo(batch, np.random.default_rng(number))
        assert all(torch.equal(changed[key], changed[keys[0]]) for key in keys)  # what belongs together stays together
        sources = changed[keys[0]].numpy()
        kept += int((videos[sources] == videos).sum())
        given += len(set(sources.tolist()))
    assert kept == 0
    assert given == num_batches // 4 * (5 + 8 + 7 + 2)  # each answer is given once


@COUNTED
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("speediness", {}),
        ("speediness", {"same_batch": False}),
        ("order_verification", {"tuples_per_window": 1}),
        ("order_verification", {"tuples_per_window": 3}),
        ("order_verification", {"tuples_per_window": 1, "negative_fraction": 0.5}),
    ],
)
def test_a_yes_or_no_is_right_half_of_the_time(name, options, num_batches):
    task = task_of(name, **options)
    (target,) = task.targets
    maker = task.clip_maker(True)
    plans = [maker.plan(VIDEO, *(np.random.default_rng([i, j]) for j in range(2))) for i in range(500)]
    labels = torch.from_numpy(np.stack([plan.targets[target] for plan in plans]))
    shares, by_class = [], np.zeros((2, 2))
    for number in range(num_batches):
        videos, rng = layouts()[number % 4], np.random.default_rng([1, number])
        truth = labels[torch.from_numpy(rng.integers(500, size=len(videos)))]
        given = task.placebo(in_batch(videos) | {target: truth}, rng)[target]
        shares.append(float((given == truth).double().mean()))
        np.add.at(by_class, (truth.numpy().ravel(), (given == truth).numpy().ravel().astype(int)), 1)
    assert abs(np.mean(shares) - 0.5) < 3 * np.std(shares) / num_batches**0.5
    assert np.ptp(by_class[:, 1] / by_class.sum(axis=1)) < 0.06 or name == "speediness"  # neither class is better known


def test_speediness_keeps_as_many_clips_of_each_speed():
    batch = in_batch(np.arange(6)) | {"is_sped": torch.tensor([[0, 1]] * 6)}
    assert int(task_of("speediness").placebo(batch, np.random.default_rng(0))["is_sped"].sum()) == 6


@pytest.mark.parametrize("schedule", ["sum", "alternate"])
@pytest.mark.parametrize("network", sorted({tasks.get(name).example_backbone for name in NAMES}))
def test_the_placebo_of_several_tasks_is_counted_by_the_contract(schedule, network):
    names = [name for name in NAMES if tasks.get(name).example_backbone == network]
    members = [Member(name, task_of(name, width=16)) for name in names]
    together = [m for m in members if getattr(m.task.clip_maker(training=True), "group_by", None) is None]
    assert len(together) == len(names) - ("temporal_cycle" in names)  # pairs stay alone
    check_task(CompositeTask(together, CompositeConfig(schedule), without_weights(network).info), backbone=network)


def test_strangers_are_of_other_videos_and_each_is_taken_equally_often():
    videos = np.array([0, 0, 1, 2, 3])
    taken = np.zeros((5, 5))
    for seed in range(4000):
        taken[np.arange(5), strangers(videos, np.random.default_rng(seed))] += 1
    expected = np.array([[0, 0, 2, 2, 2], [0, 0, 2, 2, 2], [2, 2, 0, 1, 1], [2, 2, 1, 0, 1], [2, 2, 1, 1, 0]]) / 6
    assert np.abs(taken / 4000 - expected).max() < 0.03
    assert np.array_equal(strangers(videos, np.random.default_rng(7)), strangers(videos, np.random.default_rng(7)))


def test_two_clips_of_a_video_are_told_by_their_tickets_too():
    tickets = torch.tensor([Ticket(int(Stream.TRAIN), 0, 0, index, clip) for index in (7, 3, 9) for clip in range(2)])
    assert videos_of({"tickets": tickets}, 6).tolist() == [7, 7, 3, 3, 9, 9]
    assert videos_of({}, 3).tolist() == [0, 1, 2]
    for seed in range(200):
        changed = permute_targets({"tickets": tickets, "y": torch.arange(6)}, ["y"], np.random.default_rng(seed))
        assert all(int(source) // 2 != i // 2 for i, source in enumerate(changed["y"]))


# ---- too few videos --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("videos", [[0], [5, 5], [1, 1, 2]])
def test_a_batch_without_enough_other_videos_is_refused_with_a_way_out(name, videos):
    task = task_of(name)
    names = task.targets or ("patch", "placement", "same_speed", "order", "partner", "globals", "locals", "target")
    batch = in_batch(np.array(videos)) | {key: torch.zeros(len(videos), 2, dtype=torch.int64) for key in names}
    with pytest.raises(DataError, match=r"samples .* are of one video: at most half .* Raise loader.global_batch"):
        task.placebo(batch, np.random.default_rng(0))


def test_a_majority_in_a_micro_batch_is_found_ahead():
    layout = BatchLayout(8, accumulate=2)
    order = np.arange(18)  # two steps of two micro-batches of 4; the last two samples are left over
    fine = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10])
    assert largest_majority(fine, layout, order) == 0
    assert largest_majority(np.where(np.isin(order, [8, 9, 11]), 4, fine), layout, order) == 3
    assert largest_majority(np.arange(4), BatchLayout(4, world_size=4), np.arange(4)) == 1
    assert largest_majority(np.arange(4), BatchLayout(4, clips_per_video=4), np.arange(4)) == 4
    assert largest_majority(np.arange(4), BatchLayout(4, clips_per_video=2), np.arange(4)) == 0


RECIPE = {
    "kind": "pretrain",
    "data": {"name": "manifest", "root": "???", "val_fraction": 0.3},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "placebo": True,
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False},
}


@pytest.fixture
def run(video_folder, tmp_path):
    rows = [VideoRow(f"{i:02d}.mp4", 40 + i % 3, 25.0, 48, 64, decoders_ok=("pyav",)) for i in range(12)]
    Manifest(video_folder, tuple(rows)).save(tmp_path / "table.csv")
    fixed = [f"data.root={video_folder}", f"data.list={tmp_path / 'table.csv'}"]

    def start(*overrides):
        return ssvid.pretrain(RECIPE, *fixed, *overrides, run_dir=tmp_path / "run", show_progress=False)

    return SimpleNamespace(start=start, folder=tmp_path / "run", table=tmp_path / "table.csv", videos=video_folder)


@pytest.mark.parametrize(
    ("overrides", "way_out"),
    [
        (["loader.global_batch=1"], "loader.global_batch=2"),
        (["loader.global_batch=4", "trainer.accumulate=4"], "loader.global_batch=8"),
        (["loader.global_batch=4", "trainer.accumulate=4"], "trainer.accumulate=1"),
        (["loader.global_batch=4", "loader.clips_per_video=4"], "loader.clips_per_video=1"),
    ],
)
def test_a_micro_batch_of_one_video_is_refused_before_the_run_and_the_way_out_works(run, overrides, way_out):
    with pytest.raises(DataError, match=r"task.placebo=true gives every sample the answer of another video") as refusal:
        run.start(*overrides)
    assert way_out in str(refusal.value)
    assert not run.folder.exists()
    assert run.start(*overrides, way_out, "trainer.max_steps=1").num_steps == 1


def test_pieces_of_one_long_video_are_one_video(run):
    Manifest(run.videos, (VideoRow("00.mp4", 40, 25.0, 48, 64, decoders_ok=("pyav",)),)).save(run.table)
    with pytest.raises(DataError, match=r"2 samples with 2 of one video.*1 videos .* in 3 pieces\)\. Add videos"):
        run.start("data.segment_seconds=0.3", "data.val_fraction=0", "loader.global_batch=2")


def test_validation_has_its_true_answers(run, monkeypatch):
    in_training = []
    placebo = tasks.get("speediness").placebo

    def watched(self, batch, rng):
        in_training.append(self.training)
        assert sorted(batch["video_numbers"].flatten().tolist()) == sorted(batch["tickets"][:, 3].tolist())
        return placebo(self, batch, rng)

    monkeypatch.setattr(tasks.get("speediness"), "placebo", watched)
    run.start()
    assert in_training == [True] * 4
