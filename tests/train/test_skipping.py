"""Losses and gradients that are not finite: the step is left out, nothing of it stays, and a resumed run does the same."""

import json
import math

import pytest
import pytorch_lightning as pl
import torch

import ssvid
from ssvid.train.module import StopRun
from ssvid.weights.checkpoints import load_checkpoint_dict, not_finite
from tests.conftest import held_out_by_name
from tests.train.short_run import RECIPE, STEPS


class Poison(pl.Callback):
    """Spoils chosen steps (from 0), and keeps what is saved after each."""

    def __init__(self, steps, what="gradient", value=math.nan):
        self.steps, self.what, self.value = set(steps), what, value
        self.saved = {}

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step in self.steps and self.what == "gradient":
            next(p for p in pl_module.parameters() if p.grad is not None).grad[0] = self.value

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step in self.steps and self.what == "late gradient":
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(self.value)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step in self.steps and self.what == "clips":
            pl_module.spoiled = pl_module.task.augment
            pl_module.task.augment = lambda batch, rng: self.spoil(pl_module.spoiled(batch, rng))

    def spoil(self, batch):
        return batch | {"clips": batch["clips"] * self.value}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.task.__dict__.pop("augment", None)
        state = trainer.optimizers[0].state_dict()["state"]
        values = [*pl_module.state_dict().values(), *(v for own in state.values() for v in own.values())]
        self.saved.setdefault(trainer.global_step, [])
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.saved[trainer.global_step] = [v.clone() for v in values]


def run(folder, videos, poison, *more, resume=False):
    more = [*held_out_by_name(videos, folder.parent / f"{folder.name}.csv", 5), *more]
    return ssvid.pretrain(RECIPE, *more, run_dir=folder, resume=resume, callbacks=[poison], show_progress=False)


def content(folder, name="last"):
    return load_checkpoint_dict(folder / "checkpoints" / f"{name}.ckpt")


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("what", "value", "more"),
    [
        ("gradient", math.nan, []),
        ("late gradient", math.inf, ["optim.grad_clip_norm=1"]),
        ("clips", math.nan, ["trainer.accumulate=2"]),
    ],
)
def test_nothing_of_a_spoiled_step_stays(video_folder, tmp_path, what, value, more):
    poison = Poison([3, 4], what, value)  # 5 steps are an epoch, after which all is saved
    result = run(tmp_path, video_folder, poison, *more)
    assert same(poison.saved[3], poison.saved[5])
    assert not same(poison.saved[5], poison.saved[6])
    assert not_finite(content(tmp_path)) == not_finite(content(tmp_path, "best")) == ""
    assert (result.num_steps, result.skipped_steps) == (STEPS, 2)
    assert "10 steps done (2 of them left out: not finite)" in str(result)
    assert json.loads((tmp_path / "results.json").read_text())["skipped_steps"] == 2
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["skipped_steps"]) for line in lines if "skipped_steps" in line] == [(3, 1.0), (4, 2.0)]
    assert len({line["train/lr"] for line in lines if "train/lr" in line}) == STEPS  # the schedule went on


class Stop(Poison):
    """The same, and the end of the process after a step."""

    def __init__(self, steps, at):
        super().__init__(steps)
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            raise KeyboardInterrupt


def test_a_resumed_run_goes_on_after_left_out_steps_bit_for_bit(video_folder, tmp_path):
    steps, every = [2, 3, 6], "trainer.save_every_steps=1"
    run(tmp_path / "whole", video_folder, Poison(steps), every)
    for at in (3, 7):
        folder = tmp_path / f"torn{at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, video_folder, Stop(steps, at), every)
        assert content(folder)["ssvid"]["global_step"] == at
        again = run(folder, video_folder, Poison(steps), every, resume=True)
        assert again.skipped_steps == 3
        whole, torn = content(tmp_path / "whole"), content(folder)
        assert same([*whole["state_dict"].values()], [*torn["state_dict"].values()])
        assert torn["ssvid"]["skipped_steps"] == {"total": 3, "in_a_row": 0}
        assert torn["lr_schedulers"] == whole["lr_schedulers"]


def test_too_many_in_a_row_end_the_run_and_the_row_outlives_a_restart(video_folder, tmp_path):
    borne = ["optim.max_skipped_steps=3", "trainer.save_every_steps=1"]
    with pytest.raises(StopRun, match=r"not finite at step 8 and at the 3 steps before.*Lower optim.base_lr"):
        run(tmp_path / "whole", video_folder, Poison([1, 4, 5, 6, 7, 8]), *borne)
    assert not_finite(content(tmp_path / "whole")) == ""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn", video_folder, Stop([4, 5, 6, 7], 6), *borne)
    with pytest.raises(StopRun, match="not finite at step 8"):
        run(tmp_path / "torn", video_folder, Poison([4, 5, 6, 7]), *borne, resume=True)
    with pytest.raises(StopRun, match=r"not finite at step 1\. These steps"):
        run(tmp_path / "none", video_folder, Poison([0]), "optim.max_skipped_steps=0")


class Overflow(pl.Callback):
    """A weight that the optimizer itself made infinite: no gradient told of it."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            with torch.no_grad():
                next(pl_module.backbone.parameters())[0] = math.inf


@pytest.mark.parametrize(("at", "name"), [(3, "last"), (5, "best")])  # the best is saved after an epoch's 5 steps
def test_no_path_writes_a_checkpoint_that_is_not_finite(video_folder, tmp_path, at, name):
    with pytest.raises(StopRun, match=rf"{name}.ckpt is not written, because backbone\..* is not finite"):
        run(tmp_path, video_folder, Overflow(at), "trainer.save_every_steps=1")
    kept = content(tmp_path)
    assert not_finite(kept) == ""
    assert kept["ssvid"]["global_step"] == at
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("saves", ["trainer.save_every_steps=1", "trainer.save_every_steps=0"])
@pytest.mark.parametrize("step", range(20))
def test_a_gradient_that_is_not_finite_at_any_step_spoils_no_checkpoint(video_folder, tmp_path, step, saves):
    longer = [saves, "optim.epochs=4"]
    run(tmp_path, video_folder, Poison([step]), *longer, f"trainer.max_steps={max(1, min(step + 1, 19))}")
    assert not_finite(content(tmp_path)) == ""
    again = run(tmp_path, video_folder, Poison([step]), *longer, "trainer.max_steps=-1", resume=True)
    assert (again.num_steps, again.skipped_steps) == (20, 1)
    assert not_finite(content(tmp_path)) == ""
