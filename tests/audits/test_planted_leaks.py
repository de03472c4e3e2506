"""Networks that cheat are caught, each by the cue that was planted; an honest one is not accused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import ssvid
from ssvid.tasks import PretextTask, register_task, tasks
from ssvid.types import ClipPlan, TaskOutput

from . import planted

NUM_CLIPS = 84  # of 21 held-out videos


def audited(folder, make, **options):
    """Train on planted videos for some seconds, and audit what was learned."""
    manifest = planted.write_videos(folder / "videos", make)
    run = ssvid.pretrain(planted.recipe(manifest.root), run_dir=folder / "run", show_progress=False)
    assert run.metrics["accuracy"] >= 0.8, "the network did not learn, so that there is nothing to audit"
    return ssvid.audit(
        checkpoint=run.run_dir,
        num_clips=NUM_CLIPS,
        batch_size=64,
        workers=0,
        device="cpu",
        show_progress=False,
        **options,
    ).report


def row_of(report, name, place="video"):
    return min((r for r in report.rows if (r.name, r.place) == (name, place)), key=lambda r: r.difference)


@pytest.mark.slow
def test_a_border_that_tells_is_named(tmp_path):
    report = audited(tmp_path, planted.border, only="static,border,occluded")
    assert report.conclusions[0].startswith("speediness is read from the border: accuracy falls")
    assert "with the border blackened" in report.conclusions[0]
    assert not any("fixed place" in line for line in report.conclusions)
    assert row_of(report, "static").finding == "at chance"


@pytest.mark.slow
def test_a_frame_counter_is_named_and_its_place_is_found(tmp_path):
    report = audited(tmp_path, planted.counter)
    assert report.conclusions[0].startswith("speediness is read from one fixed place: accuracy falls")
    assert "row 2, column 3 of 4" in report.conclusions[0]
    assert row_of(report, "border").held_against is False


@pytest.mark.slow
def test_quality_that_tells_is_named(tmp_path):
    report = audited(tmp_path, planted.quality)
    assert report.conclusions[0].startswith("speediness is read from compression: accuracy falls")
    assert "after re-encoding (crf" in report.conclusions[0]
    assert row_of(report, "border").held_against is False
    assert row_of(report, "occluded", "clip").held_against is False


@pytest.mark.slow
def test_an_honest_network_is_not_accused(tmp_path):
    report = audited(tmp_path, planted.moving)
    assert not [row.label for row in report.rows if row.held_against and row.finding in ("read from", "above chance")]
    assert row_of(report, "static").finding == "at chance"
    assert row_of(report, "noise").finding == "at chance"


# ---- the arrow of time


def audited_arrow(folder, make, *, guarded):
    """The same of the arrow of time, whose border guard is on or off."""
    manifest = planted.write_videos(folder / "videos", make)
    recipe = planted.arrow_recipe(manifest.root, guarded=guarded)
    run = ssvid.pretrain(recipe, run_dir=folder / "run", show_progress=False)
    assert run.metrics["accuracy"] >= 0.8, "the network did not learn, so that there is nothing to audit"
    return ssvid.audit(
        checkpoint=run.run_dir, num_clips=NUM_CLIPS, batch_size=64, workers=0, device="cpu", show_progress=False,
        only="static,noise,shuffled,reencoded,border,occluded",
    ).report  # fmt: skip


@pytest.mark.slow
def test_a_border_that_tells_the_direction_of_time_is_named(tmp_path):
    report = audited_arrow(tmp_path, planted.rising_border, guarded=False)
    assert report.conclusions[0].startswith("arrow_of_time is read from the border: accuracy falls")
    assert row_of(report, "static").finding == row_of(report, "noise").finding == "at chance"


@pytest.mark.slow
def test_compression_that_tells_the_direction_of_time_is_named(tmp_path):
    report = audited_arrow(tmp_path, planted.ringing, guarded=False)
    assert report.conclusions[0].startswith("arrow_of_time is read from compression: accuracy falls")
    assert row_of(report, "border").held_against is False


@pytest.mark.slow
def test_the_guarded_network_is_not_accused_of_the_border_that_tells(tmp_path):
    report = audited_arrow(tmp_path, planted.cooling_in_a_border, guarded=True)
    accused = [row.label for row in report.rows if row.held_against and row.finding in ("read from", "above chance")]
    assert accused == [] and row_of(report, "border").held_against is False
    assert row_of(report, "border").difference == 0  # what the audit blackens, the guard has cut off


# ---- a stranger's task whose own transform gives the answer away


@dataclasses.dataclass(frozen=True)
class HalfConfig:
    """cue: what the transform does to clips of the second half."""

    cue: str = "border"


class HalfClips:
    min_frames = 12

    def __init__(self, cue):
        self.cue = cue

    def plan(self, video, rng, batch_rng):
        start = int(rng.integers(video.num_frames - 3))
        is_late = int(2 * start >= video.num_frames - 4)
        return ClipPlan((np.arange(start, start + 4),), {"is_late": np.array(is_late)})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        clip = views_TCHW[0].clone()
        if plan.targets["is_late"] and self.cue == "border":
            clip[..., 0, :] = clip[..., -1, :] = clip[..., :, 0] = clip[..., :, -1] = 255
        if plan.targets["is_late"] and self.cue == "quality":
            pictures = [planted.jpeg(f.permute(1, 2, 0).numpy(), 8) for f in clip]
            clip = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        return {"clip": clip, "is_late": torch.from_numpy(plan.targets["is_late"])}


class Half(PretextTask):
    """Is this clip of the first or of the second half? Nothing in a still video can tell."""

    Config = HalfConfig
    targets = ("is_late",)

    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        self.head = nn.Linear(backbone.stage().channels, 1)

    def chance(self):
        return {"accuracy": 0.5}

    def clip_maker(self, training):
        return HalfClips(self.config.cue)

    def forward(self, batch, backbone):
        logits = self.head(backbone(batch["clip"].transpose(1, 2)).amax(dim=(2, 3, 4))).squeeze(1).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch["is_late"].float())
        return TaskOutput(loss, {"accuracy": ((logits > 0) == (batch["is_late"] > 0)).float()})


@pytest.fixture
def half():
    register_task("planted_half")(Half)
    yield "planted_half"
    tasks._entries.pop("planted_half")


@pytest.mark.slow
@pytest.mark.parametrize(("cue", "words"), [("border", "the border"), ("quality", "compression")])
def test_a_cue_of_the_tasks_own_transform_is_named(tmp_path, half, cue, words):
    manifest = planted.write_videos(tmp_path / "videos", lambda rng: planted.grain(planted.still(rng), rng))
    recipe = planted.recipe(manifest.root) | {
        "task": {"name": half, "options": {"cue": cue}},
        "backbone": {"name": "tiny3d", "options": {"width": 4}},
    }
    run = ssvid.pretrain(recipe, run_dir=tmp_path / "run", show_progress=False)
    result = ssvid.audit(
        checkpoint=run.checkpoint, num_clips=NUM_CLIPS, workers=0, device="cpu", show_progress=False,
        only="static,noise,reencoded,border,occluded",
    )  # fmt: skip
    first = result.report.conclusions[0]
    assert first.startswith(f"planted_half is read from {words}: accuracy falls")
    # A border is put onto clips of any border; but of videos that are poor already, all clips look late.
    assert first.endswith("so the task's own transform makes it") is (cue == "border")
    assert json.loads(result.path.read_text())["conclusions"][0] == first
