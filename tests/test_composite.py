"""Several tasks on one backbone: nothing of one moves the other, and everything of both is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.composite import CompositeClips, CompositeConfig, CompositeTask, Member
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.index.building import build_manifest
from ssvid.data.readers import list_videos
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.tasks import BatchRandom, PretextTask, tasks
from ssvid.testing import check_task
from ssvid.types import ClipPlan, Stream, TaskOutput, Ticket, VideoInfo
from ssvid.video import write_video
from ssvid.weights.checkpoints import read_checkpoint

VIDEO = VideoInfo("a", 90, 25.0, 48, 64)
SMALL = {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24}


class Brightness(PretextTask):
    """Guesses the mean of one frame, to have a task unlike speediness: one view, a float target, a stage of its own."""

    targets = ("mean",)
    stage = "stage2"

    def __init__(self, config: Any, backbone: Any) -> None:
        super().__init__(config, backbone)
        self.head = nn.Linear(backbone.stage(self.stage).channels, 1)
        self.register_buffer("seen", torch.zeros(()))

    def chance(self):
        return {"error": 1.0}

    def clip_maker(self, training):
        return OneClip()

    def forward(self, batch, backbone):
        guess = self.head(backbone.embed(batch["clip"].transpose(1, 2), self.stage))[:, 0]
        error = (guess - batch["mean"]).square()
        return TaskOutput(error.mean(), {"error": error.detach()})

    def prepare(self, samples):
        self.seen.fill_(sum(1 for _ in samples) + 1000 * sum(1 for _ in samples))


class OneClip:
    min_frames = 4

    def plan(self, video, rng, batch_rng):
        start = int(rng.integers(video.num_frames - 3))
        return ClipPlan((np.arange(start, start + 4),), {"start": np.array(start)})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {
            "clip": views_TCHW[0][..., :32, :32],
            "mean": views_TCHW[0].float().mean() / 255,
            "start": torch.from_numpy(plan.targets["start"]),
        }


def compose(schedule: str = "sum", videos: str = "same", weights: tuple[float, float] = (1.0, 0.5)) -> CompositeTask:
    info = initialize_backbone("tiny3d", {"width": 2}).info
    speed = tasks.get("speediness")
    members = [
        Member("speediness", speed(speed.Config(**SMALL), info), weights[0]),
        Member("brightness", Brightness(None, info), weights[1]),
    ]
    return CompositeTask(members, CompositeConfig(schedule, videos), info)


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    return np.random.default_rng([seed, 0]), np.random.default_rng([7, 1])


def batch_of(task: CompositeTask, training: bool = True, size: int = 4) -> tuple[dict[str, Any], BatchRandom]:
    maker = task.train(training).clip_maker(training)
    noise = torch.randint(0, 256, (90, 3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(0))
    samples = []
    for seed in range(size):
        draws = generators(seed)
        plan = maker.plan(VIDEO, *draws)
        samples.append(maker.transform(tuple(noise[torch.from_numpy(v)] for v in plan.views), plan, *draws))
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    return batch, BatchRandom.of(0, [Ticket(int(Stream.TRAIN), 0, 0, i) for i in range(size)])


@pytest.mark.parametrize("schedule", ["sum", "alternate"])
@pytest.mark.parametrize("videos", ["same", "own"])
def test_a_composite_keeps_the_contract_of_a_task(schedule: str, videos: str) -> None:
    info = initialize_backbone("tiny3d").info
    speed = tasks.get("speediness")
    members = [Member("speediness", speed(speed.Config(**SMALL), info)), Member("brightness", Brightness(None, info))]
    check_task(CompositeTask(members, CompositeConfig(schedule, videos), info))


def test_the_loss_is_the_weighted_sum_and_metrics_stay_apart() -> None:
    task, network = compose(weights=(2.0, 0.25)), initialize_backbone("tiny3d", {"width": 2}).eval()
    batch, draws = batch_of(task, training=False)
    batch = task.augment(batch, draws)
    together = task(batch, network)
    alone = {
        label: member({k.removeprefix(f"{label}/"): v for k, v in batch.items() if k.startswith(label)}, network)
        for label, member in task.members.items()
    }
    assert together.loss.item() == pytest.approx(
        2.0 * alone["speediness"].loss.item() + 0.25 * alone["brightness"].loss.item(), rel=1e-6
    )
    assert set(together.metrics) == {"speediness/accuracy", "speediness/loss", "brightness/error", "brightness/loss"}
    assert torch.equal(together.metrics["brightness/error"], alone["brightness"].metrics["error"])
    assert dict(task.chance()) == {"speediness/accuracy": 0.5, "speediness/auc": 0.5, "brightness/error": 1.0}
    assert set(task.visualize(batch, together)) == {"speediness_clips"}


def test_state_lies_under_the_labels() -> None:
    assert {key.split(".")[0] for key in compose().state_dict()} == {"speediness", "brightness"}
    assert compose().stage == "stage4"  # the deepest of the members' stages


def test_a_member_that_draws_more_does_not_move_the_other() -> None:
    class Greedy(OneClip):
        def plan(self, video, rng, batch_rng):
            rng.random(1000)
            batch_rng.random(1000)
            return super().plan(video, rng, batch_rng)

    calm, moved = (
        CompositeClips({"a": first, "b": OneClip()}).plan(VIDEO, *generators(3)) for first in (OneClip(), Greedy())
    )
    assert not np.array_equal(calm.parts["a"].views[0], moved.parts["a"].views[0])
    assert np.array_equal(calm.parts["b"].views[0], moved.parts["b"].views[0])
    assert not np.array_equal(calm.parts["a"].views[0], calm.parts["b"].views[0])


def test_turns_follow_the_weights_and_a_batch_is_of_one_task() -> None:
    maker = compose("alternate", weights=(3.0, 1.0)).clip_maker(training=True)
    turns = []
    for step in range(2000):
        labels = {
            tuple(maker.plan(VIDEO, np.random.default_rng([step, i]), np.random.default_rng([5, step])).parts)
            for i in range(3)
        }
        assert len(labels) == 1  # all samples of a global batch agree, on whatever device they are
        turns.append(labels.pop()[0])
    share = turns.count("speediness") / len(turns)
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 2000) ** 0.5


def test_in_validation_every_task_is_measured_on_every_batch() -> None:
    plan = compose("alternate").clip_maker(training=False).plan(VIDEO, *generators(0))
    assert set(plan.parts) == {"speediness", "brightness"}


def test_whoevers_turn_it_is_every_parameter_gets_a_gradient() -> None:
    seen = set()
    for step in range(12):
        task, network = compose("alternate"), initialize_backbone("tiny3d", {"width": 2})
        maker = task.clip_maker(True)
        draws = (np.random.default_rng(0), np.random.default_rng([9, step]))
        plan = maker.plan(VIDEO, *draws)
        noise = torch.zeros(90, 3, 48, 64, dtype=torch.uint8)
        sample = maker.transform(tuple(noise[torch.from_numpy(v)] for v in plan.views), plan, *draws)
        batch = {key: torch.stack([value, value]) for key, value in sample.items()}
        rng = BatchRandom.of(0, [Ticket(int(Stream.TRAIN), 0, step, i) for i in range(2)])
        task(task.augment(batch, rng), network).loss.backward()
        (turn,) = plan.parts
        seen.add(turn)
        assert all(p.grad is not None for module in (task, network) for p in module.parameters())
        (other,) = set(task.members) - {turn}
        assert all(not p.grad.any() for p in task.members[other].parameters())
        assert any(p.grad.any() for p in task.members[turn].parameters())
    assert seen == {"speediness", "brightness"}


def test_placebo_permutes_each_members_own_targets() -> None:
    task = compose()
    batch, draws = batch_of(task, size=16)
    batch = task.augment(batch, draws)
    changed = task.placebo(batch, np.random.default_rng(0))
    moved = {key for key in batch if not torch.equal(batch[key], changed[key])}
    assert moved == {"speediness/is_sped", "brightness/mean"}
    for key in moved:
        assert torch.equal(batch[key].flatten().sort().values, changed[key].flatten().sort().values)


def test_each_member_takes_answers_from_other_videos_than_its_own() -> None:
    task = compose()
    batch, draws = batch_of(task, size=4)
    batch = task.augment(batch, draws) | {"brightness/mean": torch.arange(4.0)}
    batch["video_numbers"] = torch.tensor([[0, 5], [1, 5], [2, 6], [3, 6]])  # of the second member two each are alike
    for seed in range(50):
        changed = task.placebo(batch, np.random.default_rng(seed))
        assert {int(value) // 2 for value in changed["brightness/mean"][:2]} == {1}
        assert torch.equal(changed["video_numbers"], batch["video_numbers"])


def test_a_member_prepares_on_its_own_part_and_may_read_it_twice() -> None:
    task = compose()
    batch, _ = batch_of(task, size=3)
    task.prepare([{key: value[i] for key, value in batch.items()} for i in range(3)])
    assert task.members["brightness"].seen.item() == 3003


# ---- videos of their own ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gray_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos; video number i is one shade of gray, 16 + 24 i."""
    folder = tmp_path_factory.mktemp("gray")
    for i in range(8):
        frame = np.full((32, 32, 3), 16 + 24 * i, dtype=np.uint8)
        write_video(folder / f"{i}.mp4", [frame] * 20, fps=25)
    return folder


def shades(videos: Path, own: bool, epoch: int) -> list[tuple[int, int]]:
    """Which video each of two members was given, for every sample of an epoch."""
    manifest = build_manifest(videos, list_videos("folder", videos), workers=1)
    makers = CompositeClips({"a": OneClip(), "b": OneClip()}, own_videos=own)
    dataset = ClipDataset(manifest, manifest.rows, makers, seed=1)
    found = []
    for index in range(len(dataset)):
        (sample,) = dataset[(Ticket(int(Stream.TRAIN), epoch, 0, index),)]
        means = [sample[f"{label}/clip"].float().mean().item() for label in "ab"]
        found.append(tuple(round((mean - 16) / 24) for mean in means))
    return found


def test_members_share_a_video(gray_videos: Path) -> None:
    assert shades(gray_videos, False, 0) == [(i, i) for i in range(8)]


def test_members_take_videos_of_their_own_each_once_an_epoch(gray_videos: Path) -> None:
    first, second = shades(gray_videos, True, 0), shades(gray_videos, True, 3)
    for found in (first, second):
        assert [a for a, _ in found] == list(range(8))
        assert sorted(b for _, b in found) == list(range(8))
        assert all(a != b for a, b in found)
    assert first != second  # other pairs in another epoch
    assert shades(gray_videos, True, 0) == first


# ---- recipes ---------------------------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"name": "folder", "root": "???", "val_fraction": 0.2, "index_workers": 1},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "tasks": [
        {"name": "speediness", "options": SMALL},
        {"name": "speediness", "label": "drops", "weight": 0.5, "options": {**SMALL, "spacing": "drop"}},
    ],
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1},
}


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({"schedule": "alternate"}, {"videos": "own"}))],
)
def test_a_recipe_with_two_tasks_trains_and_exports(
    video_folder: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    recipe = RECIPE | {"task": {"options": options}}
    result = ssvid.pretrain(recipe, f"data.root={video_folder}", run_dir=tmp_path / "run", show_progress=False)
    assert {"speediness/accuracy", "drops/accuracy", "drops/auc", "drops/loss", "loss"} <= set(result.metrics)
    checkpoint = read_checkpoint(result.checkpoint)
    assert {key.split(".")[0] for key in checkpoint.task_state} == {"speediness", "drops"}
    assert [entry["label"] for entry in checkpoint.meta["task"]["options"]["tasks"]] == ["", "drops"]
    assert (tmp_path / "run" / "pictures" / "val_epoch0000_drops_clips.png").is_file()
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("val/drops/accuracy" in line for line in logged)
    ssvid.export(tmp_path / "run", tmp_path / "out")
    clip = torch.rand(1, 3, 8, 32, 32)
    from_export, from_run = (ssvid.load_backbone(path) for path in (tmp_path / "out", tmp_path / "run"))
    assert torch.equal(from_export(clip), from_run(clip))
    assert from_export.provenance["task"]["name"] == "composite"


def test_an_item_of_the_list_is_overridden_by_its_number() -> None:
    loaded = load_recipe(RECIPE, ["data.root=x", "tasks.1.weight=2", "tasks.0.options.num_frames=12"], kind="pretrain")
    first, second = loaded.resolved["tasks"]
    assert (first["options"]["num_frames"], second["weight"], second["options"]["num_frames"]) == (12, 2.0, 6)
    assert first["options"]["spacing"] == "even"  # every default is written out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"task": {"name": "speediness"}},
            r"task.name \('speediness'\) and tasks are both set. Leave one of them out.",
        ),
        ({"tasks": [{"name": "speedyness"}]}, r"tasks.0.name: unknown task 'speedyness'. Did you mean 'speediness'"),
        ({"tasks": [{"name": "speediness", "options": {"frames": 3}}]}, r"unknown key 'tasks.0.options.frames'"),
        ({"tasks": ["speediness"]}, r"tasks.0 \('speediness'\) must be a group of keys: name, label, weight, options"),
        ({"tasks": [{"weight": 1}]}, r"tasks.0.name is not set"),
        ({"tasks": [], "task": {"name": "composite"}}, r"task.name \(composite\) needs a list of tasks"),
        ({"task": {"options": {"shedule": "sum"}}}, r"unknown key 'task.options.shedule'. Did you mean 'schedule'"),
    ],
)
def test_a_wrong_list_is_told(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load_recipe(RECIPE | change, ["data.root=x"], kind="pretrain")


@pytest.mark.parametrize(
    ("labels", "weights", "config", "complaint"),
    [
        (("a", "a"), (1, 1), {}, r"2 of them have the label 'a'. Set label=... to tell them apart."),
        (("a", "b"), (1, 0), {}, r"the weight of b \(0\) must be positive. Leave the task out instead."),
        (("a", "b.c"), (1, 1), {}, r"label 'b.c' must be letters, digits and underscores"),
        (("a", "forward"), (1, 1), {}, r"label 'forward' is taken by ssvid itself"),
        (
            ("a", "b"),
            (1, 1),
            {"schedule": "som"},
            r"task.options.schedule \('som'\) must be one of sum, alternate \(did you mean 'sum'\?\)",
        ),
        (("a", "b"), (1, 1), {"videos": "two"}, r"task.options.videos \('two'\) must be one of same, own"),
        ((), (), {}, r"tasks is empty: name at least one task"),
    ],
)
def test_what_cannot_be_composed_is_told(labels: Any, weights: Any, config: Any, complaint: str) -> None:
    info = initialize_backbone("tiny3d", {"width": 2}).info
    members = [Member(label, Brightness(None, info), weight) for label, weight in zip(labels, weights, strict=True)]
    with pytest.raises(RecipeError, match=complaint):
        CompositeTask(members, CompositeConfig(**config), info)


class AddsOnTheDevice(Brightness):
    """Makes something in ``augment`` that no worker sent, as a task does that cuts its patch out on the device."""

    def augment(self, batch, rng):
        return {**super().augment(batch, rng), "offset": batch["mean"] * 0 + 1}

    def forward(self, batch, backbone):
        output = super().forward(batch, backbone)
        return TaskOutput(output.loss * batch["offset"].mean(), output.metrics)


def test_what_a_member_adds_on_the_device_reaches_it_and_nobody_else():
    info = initialize_backbone("tiny3d").info
    members = [Member("one", AddsOnTheDevice(None, info)), Member("other", Brightness(None, info))]
    composite = CompositeTask(members, CompositeConfig(), info)
    tickets = [Ticket(int(Stream.TRAIN), 0, 0, i) for i in range(2)]
    batch = {f"{label}/{key}": value for label in ("one", "other") for key, value in two_samples().items()}
    augmented = composite.augment(batch | {"weight": torch.ones(2)}, BatchRandom.of(0, tickets))
    assert set(augmented) == {*batch, "weight", "one/offset"}
    check_task(composite)


def two_samples():
    clip = torch.zeros(2, 4, 3, 32, 32, dtype=torch.uint8)
    return {"clip": clip, "mean": torch.tensor([0.2, 0.4]), "start": torch.tensor([3, 4])}


def test_a_task_of_pairs_is_refused_among_several():
    info, task = initialize_backbone("tiny3d", {"width": 2}).info, tasks.get("temporal_cycle")
    options = {"num_steps": 4, "context_frames": 2, "context_stride": 1, "frame_px": 32, "head": "none"}
    members = [Member("brightness", Brightness(None, info)), Member("cycle", task(task.Config(**options), info))]
    with pytest.raises(RecipeError, match=r"tasks: cycle takes pairs of videos.*Train it by itself"):
        CompositeTask(members, CompositeConfig(), info)
