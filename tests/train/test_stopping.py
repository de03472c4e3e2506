"""SIGTERM and SIGUSR1 at any moment of a run: the step just done is saved, and the run goes on from it bit for bit."""

import json
import os
import signal
import time

import pytest
import pytorch_lightning as pl
import torch

import ssvid
from ssvid import stopping
from ssvid.data.feed.dataset import ClipDataset
from ssvid.train import callbacks
from ssvid.types import Stream
from ssvid.weights.checkpoints import load_checkpoint_dict
from tests.conftest import held_out_by_name
from tests.train.short_run import RECIPE, STEPS


class Send(pl.Callback):
    """A signal to this process at a moment of a step (from 0)."""

    def __init__(self, moment, step, number=signal.SIGTERM):
        self.moment, self.step, self.number = moment, step, number
        self.sent, self.trainer = False, None

    def at(self, moment, step):
        if (moment, step) == (self.moment, self.step) and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)

    def on_train_start(self, trainer, pl_module):
        self.trainer = trainer
        self.at("start", trainer.global_step)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.at("before the step", trainer.global_step)

    def on_after_backward(self, trainer, pl_module):
        self.at("backward", trainer.global_step)

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.at("zero grad", trainer.global_step)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.at("after the step", trainer.global_step)

    def on_validation_start(self, trainer, pl_module):
        self.at("validation", trainer.global_step)

    def on_validation_batch_end(self, trainer, pl_module, *args, **kwargs):
        self.at("in validation", trainer.global_step)

    def on_validation_end(self, trainer, pl_module):
        self.at("validated", trainer.global_step)


def run(folder, videos, *more, send=None, resume=False):
    more = [*held_out_by_name(videos, folder.parent / f"{folder.name}.csv", 5), *more]
    sending = [] if send is None else [send]
    return ssvid.pretrain(RECIPE, *more, run_dir=folder, resume=resume, callbacks=sending, show_progress=False)


def content(folder):
    return load_checkpoint_dict(folder / "checkpoints" / "last.ckpt")


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if not any(k.startswith("perf/") for k in line)]


def require_same(folder, whole):
    torn = content(folder)
    for key, value in content(whole)["state_dict"].items():
        assert torch.equal(torn["state_dict"][key], value), key
    assert logged(folder) == logged(whole)


@pytest.fixture(scope="module")
def whole(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, video_folder)
    return folder


def stop(folder, videos, send, *more):
    before = {number: signal.getsignal(number) for number in (*stopping.SIGNALS, signal.SIGINT, signal.SIGALRM)}
    with pytest.raises(stopping.Stopped) as caught:
        run(folder, videos, *more, send=send)
    assert {number: signal.getsignal(number) for number in before} == before
    assert send.sent
    assert caught.value.exit_code == 75
    return str(caught.value)


MOMENTS = [
    ("before the step", 2, 3),
    ("backward", 0, 1),
    ("zero grad", 6, 7),
    ("after the step", 2, 2),
    ("after the step", 5, 5),  # an epoch's last step, and saved at that moment
    ("in validation", 5, 5),
    ("validated", 5, 5),
]


@pytest.mark.parametrize(("moment", "step", "saved"), MOMENTS)
def test_the_step_that_is_done_is_saved_and_gone_on_from_exactly(video_folder, tmp_path, whole, moment, step, saved):
    number = signal.SIGUSR1 if step == 6 else signal.SIGTERM
    text = stop(tmp_path / "run", video_folder, Send(moment, step, number))
    assert text.startswith(
        f"stopped by {signal.Signals(number).name}; step {saved} is saved. Go on with: ssvid pretrain"
    )
    assert content(tmp_path / "run")["ssvid"]["global_step"] == saved
    run(tmp_path / "run", video_folder, resume=True)
    require_same(tmp_path / "run", whole)


def test_a_signal_while_a_checkpoint_is_written_waits_for_it(video_folder, tmp_path, whole, monkeypatch):
    send = Send("saving", 3)

    class Saving(callbacks.SaveLast):
        def _save(self, trainer):
            send.at("saving", trainer.global_step)
            super()._save(trainer)

    monkeypatch.setattr("ssvid.train.trainer.SaveLast", Saving)
    stop(tmp_path / "run", video_folder, send, "trainer.save_every_steps=1")
    assert content(tmp_path / "run")["ssvid"]["global_step"] == 3
    run(tmp_path / "run", video_folder, resume=True)
    require_same(tmp_path / "run", whole)


@pytest.mark.parametrize(("step", "saved"), [(3, 3), (0, 0)])
def test_a_wait_for_data_is_left_at_once(video_folder, tmp_path, whole, monkeypatch, step, saved):
    send, read = Send("waiting", step), ClipDataset.__getitem__

    def hang(self, group):
        if group[0].stream == Stream.TRAIN and send.trainer and send.trainer.global_step == step:
            send.at("waiting", step)
            time.sleep(60)
        return read(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "__getitem__", hang)
        started = time.monotonic()
        text = stop(tmp_path / "run", video_folder, send)
        assert time.monotonic() - started < 40
    assert (f"step {saved} is saved" if saved else "no step was saved yet") in text
    run(tmp_path / "run", video_folder, resume=True)
    require_same(tmp_path / "run", whole)


def test_a_wait_in_mid_step_is_left_when_the_time_is_over(video_folder, tmp_path, monkeypatch):
    send, read = Send("waiting", 3), ClipDataset.__getitem__

    def hang(self, group):
        if (
            group[0].stream == Stream.TRAIN
            and send.trainer
            and send.trainer.fit_loop.epoch_loop.batch_progress.current.ready == 7
        ):
            send.at("waiting", 3)
            time.sleep(60)
        return read(self, group)

    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(ClipDataset, "__getitem__", hang)
    text = stop(tmp_path, video_folder, send, "trainer.accumulate=2", "trainer.save_every_steps=2")
    assert "step 2 is saved (of 3 done)" in text
    assert content(tmp_path)["ssvid"]["global_step"] == 2


def test_a_validation_that_takes_too_long_is_given_up(video_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.0)
    send = Send("validation", 5)
    stop(tmp_path, video_folder, send)
    assert content(tmp_path)["ssvid"]["global_step"] == 5
    assert not any("val/loss" in line for line in logged(tmp_path))


def test_a_run_that_max_steps_ended_in_mid_epoch_goes_on_exactly(video_folder, tmp_path, whole):
    assert run(tmp_path / "run", video_folder, "trainer.max_steps=7").num_steps == 7
    assert run(tmp_path / "run", video_folder, "trainer.max_steps=-1", resume=True).num_steps == STEPS
    require_same(tmp_path / "run", whole)


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_another(video_folder, tmp_path, whole, capsys):
    stop(tmp_path / "run", video_folder, Send("after the step", 7))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    last.write_bytes(damaged)
    listed = held_out_by_name(video_folder, tmp_path / "run.csv", 5)
    again = ssvid.pretrain(RECIPE, *listed, run_dir=tmp_path / "run", resume=True)
    assert again.num_steps == STEPS
    told = " ".join(capsys.readouterr().err.split())
    assert "last.ckpt is damaged" in told
    assert "best.ckpt, step 5, instead" in told
    require_same(tmp_path / "run", whole)


def test_a_signal_after_the_last_step_does_not_make_a_finished_run_a_stopped_one(video_folder, tmp_path, whole):
    send = Send("in validation", STEPS)
    run(tmp_path / "run", video_folder, send=send)
    assert send.sent
    require_same(tmp_path / "run", whole)
