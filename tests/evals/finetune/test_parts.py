"""The parts of fine-tuning, each by hand: rates, heads, mixing, crops, what is held out, what is refused."""

import re

import numpy as np
import pytest
import torch

from ssvid.backbones import create_backbone, initialize_backbone
from ssvid.classifiers.classification import Classification, TrainingClips, mix, training_crop
from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading, resolve_finetune_protocol
from ssvid.data.config import LoaderConfig
from ssvid.data.manifest import VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals.contract import Tools
from ssvid.evals.finetune.rates import parameter_groups
from ssvid.evals.finetune.training import FinetuneModule, check_amounts, hold_out
from ssvid.features.views import corners, crop_views
from ssvid.protocols.named import PROTOCOLS
from ssvid.recipe.load import load_recipe
from ssvid.tasks import BatchRandom
from ssvid.train.checkpoint_io import AtomicCheckpointIO
from ssvid.train.config import FinetuneOptimConfig, TrainerConfig
from ssvid.train.module import StopRun
from ssvid.train.optim import optimizer_of
from ssvid.transforms import random_area
from ssvid.transforms.color import Jitter, jitter_clip, random_jitter
from ssvid.types import Stream, Ticket, VideoInfo

NETWORK = initialize_backbone("tiny3d", {"width": 2}, seed=0)
CLASSES = ("a", "b", "c")


def resolved(**changes) -> FinetuneProtocol:
    sizes = {"num_frames": 4, "crop_px": 16, "resize_px": 20, "dropout": 0.0}
    return resolve_finetune_protocol(protocol_of(**{**sizes, **changes}), NETWORK.info)


def protocol_of(**changes) -> FinetuneProtocol:
    """With settings of the optimizer among the others, as ``optim_name``."""
    optim = {key.removeprefix("optim_"): changes.pop(key) for key in list(changes) if key.startswith("optim_")}
    return FinetuneProtocol(**changes, optim=FinetuneOptimConfig(**optim))


def classifier(**changes) -> Classification:
    return Classification(resolved(**changes), NETWORK.info, classes=CLASSES, chance=1 / 3, seed=0)


def batch_of(num: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (num, 4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return {"clips": clips, "label": torch.arange(num) % 3}


def draws(num: int, epoch: int = 0) -> BatchRandom:
    return BatchRandom.of(0, [Ticket(int(Stream.TRAIN), epoch, 0, i) for i in range(num)])


# ---- learning rates


def test_rates_fall_from_the_head_to_the_first_stage():
    p = resolved(optim_base_lr=2.56, batch_size=10, head_lr_factor=10.0, layer_decay=0.5, optim_weight_decay=0.3)
    groups = parameter_groups(NETWORK, torch.nn.Linear(16, 3), p)
    rates = {g["name"]: g["lr"] for g in groups}
    # lr = 2.56 * 10 / 256 = 0.1
    assert rates == pytest.approx({"head": 1.0, "stage4": 0.05, "stage3": 0.025, "stage2": 0.0125, "stage1": 0.00625})
    for group in groups:
        expected = {0.0} if {q.ndim for q in group["params"]} == {1} else {0.3}
        assert {group["weight_decay"]} == expected
    given = [id(q) for g in groups for q in g["params"]]
    assert len(given) == len(set(given)) == len(list(NETWORK.parameters())) + 2


def test_stages_above_the_one_that_is_used_are_in_no_group():
    groups = parameter_groups(NETWORK, torch.nn.Linear(4, 3), resolved(stage="stage2", layer_decay=0.5, batch_size=256))
    assert {g["name"]: g["lr"] for g in groups} == pytest.approx({"head": 0.1, "stage2": 0.05, "stage1": 0.025})


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers_keep_the_groups_rates(name, kind):
    p = resolved(optim_name=name, layer_decay=0.5, optim_momentum=0.7)
    optimizer = optimizer_of(parameter_groups(NETWORK, torch.nn.Linear(16, 3), p), p.optim, p.learning_rate)
    assert type(optimizer).__name__ == kind
    assert len({group["lr"] for group in optimizer.param_groups}) == 5
    assert name != "sgd" or {group["momentum"] for group in optimizer.param_groups} == {0.7}


# ---- loss


def test_label_smoothing_is_torchs():
    task = classifier(label_smoothing=0.2).eval()
    batch = task.augment(batch_of(6), draws(6))
    output = task(batch, NETWORK)
    logits = task.head(NETWORK(batch["clips"]))
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits, batch["label"])
    torch.testing.assert_close(output.loss, expected)
    assert output.metrics["top1"].tolist() == (logits.argmax(1) == batch["label"]).float().tolist()


def test_mixup_by_hand():
    task = classifier(mixup_alpha=0.5, flip=False).train()
    batch = batch_of(6)
    mixed = task.augment(dict(batch), draws(6))
    rng = draws(6).shared
    w, order = float(rng.beta(0.5, 0.5)), rng.permutation(6)
    assert 0 < w < 1
    plain = batch["clips"].transpose(1, 2) / 255
    torch.testing.assert_close(mixed["clips"], w * plain + (1 - w) * plain[order])
    network = initialize_backbone("tiny3d", {"width": 2}, seed=0).eval()
    logits = task.head(network(mixed["clips"]))
    one_hot = torch.eye(3)[batch["label"]]
    target = w * one_hot + (1 - w) * one_hot[order]
    by_hand = -(target * torch.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(task(mixed, network).loss, by_hand)


def test_without_mixing_partners_a_batch_keeps_its_label():
    alone = mix({"clips": torch.ones(1, 3, 1, 2, 2), "label": torch.tensor([2])}, 0.4, np.random.default_rng(0))
    assert alone["other_label"].tolist() == [2]
    torch.testing.assert_close(alone["clips"], torch.ones(1, 3, 1, 2, 2))


# ---- augmentation


def test_flips_are_the_samples_own_and_evaluation_changes_nothing():
    task, batch = classifier(), batch_of(8)
    plain = batch["clips"].transpose(1, 2).float() / 255
    torch.testing.assert_close(task.eval().augment(dict(batch), draws(8))["clips"], plain, rtol=0, atol=0)
    task.train()
    out = task.augment(dict(batch), draws(8))["clips"]
    flipped = [torch.equal(o, p.flip(-1)) for o, p in zip(out, plain, strict=True)]
    kept = [torch.equal(o, p) for o, p in zip(out, plain, strict=True)]
    assert [a != b for a, b in zip(flipped, kept, strict=True)] == [True] * 8
    assert any(flipped) and any(kept)
    half = {"clips": batch["clips"][4:], "label": batch["label"][4:]}
    tickets = [Ticket(int(Stream.TRAIN), 0, 0, i) for i in range(4, 8)]
    assert torch.equal(task.augment(half, BatchRandom.of(0, tickets))["clips"], out[4:])  # on another rank, say


def test_jitter_is_one_change_for_the_whole_clip():
    clip = torch.rand(3, 1, 8, 8).expand(-1, 5, -1, -1)
    changed = jitter_clip(clip, Jitter(1.3, 0.7, 1.4, 0.1, (2, 0, 3, 1)))
    assert not torch.allclose(changed, clip)
    for t in range(1, 5):
        torch.testing.assert_close(changed[:, t], changed[:, 0])
    brighter = jitter_clip(clip * 0.4, Jitter(2.0, 1.0, 1.0, 0.0))
    torch.testing.assert_close(brighter, clip * 0.8)
    assert jitter_clip(clip, None) is clip


def test_jitter_is_drawn_within_its_strengths():
    rng = np.random.default_rng(0)
    found = [random_jitter((0.4, 0.2, 1.5, 0.1), 0.3, rng) for _ in range(2000)]
    drawn = [j for j in found if j is not None]
    assert len(drawn) / 2000 == pytest.approx(0.3, abs=0.04)
    low, high = np.min([j[:4] for j in drawn], axis=0), np.max([j[:4] for j in drawn], axis=0)
    assert (low >= [0.6, 0.8, 0.0, -0.1]).all() and (high <= [1.4, 1.2, 2.5, 0.1]).all()
    assert low == pytest.approx([0.6, 0.8, 0.0, -0.1], abs=0.05)
    assert random_jitter((0, 0, 0, 0), 1.0, rng) is None


def test_crops_by_area_stay_inside_and_have_the_area_and_aspect_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([random_area(120, 160, rng, min_area=0.2, max_aspect=1.5) for _ in range(3000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 120).all() and (left + w <= 160).all()
    area, aspect = h * w / (120 * 160), w / h
    assert area.min() == pytest.approx(0.2, abs=0.01) and area.max() > 0.95
    assert 1 / 1.52 < aspect.min() and aspect.max() < 1.52
    assert random_area(40, 400, rng, min_area=0.9, max_aspect=1.0) == (0, 180, 40, 40)  # no such area: the center
    small = [random_area(120, 120, rng, min_area=0.3, max_area=0.4, max_aspect=1.5) for _ in range(500)]
    assert max(h * w for _, _, h, w in small) <= 0.41 * 120 * 120
    with pytest.raises(ValueError, match=r"min_area \(0.5\) and max_area \(0.4\) must lie in \(0, 1\] in this order"):
        random_area(40, 40, rng, min_area=0.5, max_area=0.4)


def test_crops_by_place_have_one_scale():
    rng = np.random.default_rng(0)
    p = resolved(crop="place", crop_px=16, resize_px=20)
    boxes = {training_crop(100, 140, p, rng) for _ in range(500)}
    assert {box[2:] for box in boxes} == {(80, 80)}  # 16 of 20 of the short side
    assert {box[0] for box in boxes} == set(range(21)) and max(box[1] for box in boxes) == 60
    assert training_crop(100, 140, resolved(crop="center"), rng) == (10, 30, 80, 80)


@pytest.mark.parametrize(("length", "expected"), [(20, range(0, 14)), (7, [0]), (3, [0])])
def test_a_training_clip_starts_anywhere_and_a_short_video_repeats_its_last_frame(length, expected):
    maker = TrainingClips(resolved(num_frames=4, stride_frames=2))
    video = VideoInfo("v", length, 25.0, 20, 24)
    clips = [maker.plan(video, np.random.default_rng([0, i]), np.random.default_rng(0)).views[0] for i in range(300)]
    assert {int(clip[0]) for clip in clips} == set(expected)
    assert all((np.minimum(clip[0] + np.array([0, 2, 4, 6]), length - 1) == clip).all() for clip in clips)


# ---- views


def test_baselines_are_trained_on_the_same_clips_with_one_frame_or_in_another_order():
    video, seen = VideoInfo("v", 40, 25.0, 48, 64), set()
    for seed in range(20):
        clips = [
            TrainingClips(resolved(num_frames=4, stride_frames=2, frames=frames))
            .plan(video, np.random.default_rng(seed), np.random.default_rng(0))
            .views[0]
            for frames in ("video", "single_frame", "shuffled")
        ]
        assert clips[1].tolist() == [clips[0][2]] * 4, "the middle frame, as in the test"
        assert sorted(clips[2]) == sorted(clips[0])
        seen.add(tuple(np.argsort(clips[2])))
    assert len(seen) > 5
    assert clip_reading(resolved(frames="shuffled"), LoaderConfig()).frames == "shuffled"


def test_ten_crops_are_corners_center_and_mirror_images():
    frames = torch.rand(2, 3, 3, 20, 26)
    views = crop_views(frames, 16, 10)
    assert views.shape == (20, 3, 3, 16, 16)
    places = [(0, 0), (0, 10), (4, 0), (4, 10), (2, 5)]
    assert corners(20, 26, 16, 10) == places
    for v in range(2):
        for i, (y, x) in enumerate(places):
            cut = frames[v, :, :, y : y + 16, x : x + 16].transpose(0, 1)
            torch.testing.assert_close(views[10 * v + i], cut)
            torch.testing.assert_close(views[10 * v + 5 + i], cut.flip(-1))


def test_three_crops_lie_along_the_longer_side():
    assert corners(20, 30, 16, 3) == [(2, 0), (2, 7), (2, 14)]
    assert corners(30, 20, 16, 3) == [(0, 2), (7, 2), (14, 2)]
    frames = torch.rand(1, 2, 3, 20, 30)
    torch.testing.assert_close(crop_views(frames, 16, 3)[1], crop_views(frames, 16, 1)[0])


# ---- what is held out, what is refused


def row(path: str, label: str, **more) -> VideoRow:
    return VideoRow(path, 30, 25.0, 48, 64, label=label, split="train", **more)


ROWS = [row(f"{label}{i}.mp4", label, group=f"{label}{i // 2}") for label in CLASSES for i in range(12)]


def test_the_held_out_part_tears_no_group_apart_and_has_every_class():
    parts = hold_out([*ROWS, row("bad.mp4", "a", status="unreadable: cut")], resolved(holdout_fraction=0.17), 0)
    assert {r.group for r in parts.held}.isdisjoint({r.group for r in parts.fit})
    assert {r.label for r in parts.held} == set(CLASSES)
    assert len(parts.held) == 6 and len(parts.fit) == 31
    assert hold_out(ROWS, resolved(holdout_fraction=0.17), 0) == hold_out(ROWS, resolved(holdout_fraction=0.17), 0)
    assert hold_out(ROWS, resolved(holdout_fraction=0), 0).held == ()


def refused(rows=ROWS, trainer=None, **changes) -> str:
    p = resolved(holdout_fraction=0, **changes)
    with pytest.raises(DataError) as caught:
        check_amounts(hold_out(rows, p, 0), rows, p, Tools(trainer=trainer or TrainerConfig(devices="1")))
    return " ".join(str(caught.value).split())


def test_too_few_or_too_short_videos_are_told_before_any_is_read():
    assert re.search(
        r"batch_size \(40\) needs as many .* 36 are left .* Set finetune.batch_size=36", refused(batch_size=40)
    )
    assert re.search(
        r"num_frames \(40\) at .*needs 40 frames.* has 30. Set finetune.num_frames=30", refused(num_frames=40)
    )
    two = TrainerConfig(devices="2", accumulate=2)
    assert re.search(
        r"batch_size \(6\) must be a multiple .* 4. Set finetune.batch_size=4", refused(trainer=two, batch_size=6)
    )
    assert "needs at least 2" in refused(trainer=two, batch_size=4, head_norm="batch")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"optim_name": "sgdd"},
            r"optim.name \('sgdd'\) must be one of sgd, adam, adamw \(did you mean 'sgd'\?\)",
        ),
        ({"head": "linar"}, r"finetune.head \('linar'\) must be .* \(did you mean 'linear'\?\)"),
        ({"num_crops": 5}, r"finetune.num_crops \(5\) must be one of 1, 3, 10"),
        ({"layer_decay": 1.5}, r"finetune.layer_decay \(1.5\) must be above 0 and at most 1"),
        ({"optim_warmup_epochs": 99}, r"must lie between 0 and optim.epochs \(50\). Set optim.warmup_epochs=5"),
        ({"optim_schedule": "step"}, r"optim.step_epochs \(\[\]\) belong to optim.schedule=step"),
        ({"optim_step_epochs": [3]}, r"optim.step_epochs \(\[3\]\) belong to .* Set optim.step_epochs=\[\]"),
        ({"frozen": True, "layer_decay": 0.5}, r"layer_decay \(0.5\) does nothing where finetune.frozen is true"),
        ({"holdout_fraction": 0, "refit": True}, r"refit \(True\) needs a held-out part"),
        ({"stage": "stage9"}, r"no stage 'stage9'"),
        ({"crop_px": 16, "resize_px": 8}, r"resize_px \(8\) must be at least the crop, 16"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused_with_the_way_out(changes, text):
    with pytest.raises(RecipeError, match=text):
        resolve_finetune_protocol(protocol_of(**changes), NETWORK.info)


def test_all_problems_are_told_at_once_and_a_frozen_head_stays_on_trained_stages():
    with pytest.raises(RecipeError) as caught:
        resolve_finetune_protocol(protocol_of(optim_epochs=0, dropout=1.0, averaging="mean"), NETWORK.info)
    assert [name in str(caught.value) for name in ("epochs", "dropout", "averaging")] == [True] * 3
    deep = FinetuneProtocol(frozen=True, stage="stage3")
    with pytest.raises(RecipeError, match=r"stage3\) must not be deeper than the deepest trained stage, stage2"):
        resolve_finetune_protocol(deep, NETWORK.info, "stage2")
    assert resolve_finetune_protocol(FinetuneProtocol(stage="stage3"), NETWORK.info, "stage2").stage == "stage3"
    assert resolve_finetune_protocol(FinetuneProtocol(), NETWORK.info, "stage2").stage == "stage2"


@pytest.mark.parametrize("protocol", [p.id for p in PROTOCOLS if p.kind == "finetune"])
def test_every_named_protocol_can_be_used(protocol):
    recipe = load_recipe({"protocol": protocol}, ["data.root=x"], kind="finetune").recipe
    p = resolve_finetune_protocol(recipe.asks()["finetune"], NETWORK.info)
    assert p.metric == "finetune" and p.num_clips >= 10 and p.holdout_fraction > 0


def test_automatic_sizes_are_the_backbones():
    p = resolve_finetune_protocol(FinetuneProtocol(), NETWORK.info)
    assert (p.crop_px, p.resize_px, p.stage) == (56, 64, "stage4")
    reading = clip_reading(p, LoaderConfig(workers_per_device=3, decoder="pyav"))
    assert (reading.num_clips, reading.crop_px, reading.workers, reading.decoder) == (10, 56, 3, "pyav")
    assert p.learning_rate == pytest.approx(0.1 * 32 / 256)


def test_what_stops_a_fine_tuning_names_its_own_options_and_the_file_as_it_is(tmp_path):
    writer = AtomicCheckpointIO(FinetuneModule.options)
    with pytest.raises(StopRun) as caught:
        writer.save_checkpoint({"state_dict": {"w": torch.tensor(float("nan"))}}, tmp_path / "optim.x.ckpt")
    assert f"{tmp_path / 'optim.x.ckpt'} is not written" in str(caught.value)
    assert "a lower optim.base_lr, optim.grad_clip_norm=1, or trainer.precision=32" in str(caught.value)


@pytest.mark.parametrize(("num_frames", "rule"), [(8, "at least"), (16, "at most")])
def test_too_few_or_too_many_frames_for_early_fusion_are_told_with_its_number(num_frames, rule):
    with torch.device("meta"):
        network = create_backbone("early_fusion")
    said = (
        rf"finetune.num_frames \({num_frames}\) must be {rule} 10 for backbone early_fusion. Set finetune.num_frames=10"
    )
    with pytest.raises(RecipeError, match=said):
        resolve_finetune_protocol(protocol_of(num_frames=num_frames), network.info)
