"""The untrained row: what the network scores before its first step, and that measuring it changes nothing."""

import json

import pytest
import torch
from torch import nn

import ssvid
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.train.untrained import AS_INITIALIZED, ESTIMATED, better_of, measure_untrained
from tests.contracts.test_placebo import RECIPE


class Sums:
    def __init__(self):
        self.values = []

    def results(self):
        return {"mean": sum(self.values) / len(self.values)}


class Normalizing(nn.Module):
    """Its answer is the first value of the batch, normalized by what the batch norm holds."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.register_buffer("calls", torch.zeros(()))

    def answer(self, batch):
        self.calls += 1
        return self.norm(batch)

    def new_measures(self):
        return Sums()

    def measure(self, batch, measures):
        assert not self.training
        measures.values.append(float(self.answer(batch)[0, 0]))


def batch(*values):
    return torch.tensor(values)[:, None]


def test_both_forms_are_measured_and_the_module_is_left_as_it_was():
    module = Normalizing(nn.BatchNorm1d(1, eps=1e-12, affine=False)).train()
    module.norm.running_mean += 0.5
    training = [batch(1.0, 3.0), batch(5.0, 7.0)]  # means 2 and 6, unbiased variances 2 and 2
    found = measure_untrained(module, training, [batch(4.0, 0.0), batch(6.0, 0.0)])
    assert found[AS_INITIALIZED]["mean"] == pytest.approx((3.5 + 5.5) / 2)
    assert found[ESTIMATED]["mean"] == pytest.approx((0 + 2 / 2**0.5) / 2)
    assert (module.training, module.norm.training, float(module.calls)) == (True, True, 0)
    assert (float(module.norm.running_mean), float(module.norm.running_var)) == (0.5, 1.0)
    assert module.norm.momentum == 0.1


def test_statistics_are_averaged_over_the_ranks():
    module = Normalizing(nn.BatchNorm1d(1, eps=1e-12, affine=False))
    found = measure_untrained(module, [batch(1.0, 3.0)], [batch(4.0, 0.0)], average=lambda b: b + (b == 2.0))
    assert found[ESTIMATED]["mean"] == pytest.approx((4 - 3) / 3**0.5)  # mean and variance, both 2, became 3


def test_without_batch_norm_there_is_one_form_and_no_training_clip_is_read():
    module = Normalizing(nn.Identity())
    assert measure_untrained(module, iter(lambda: 1 / 0, None), [batch(4.0)]) == {AS_INITIALIZED: {"mean": 4.0}}


def test_the_better_value_of_each_metric_counts():
    forms = {
        "a": {"accuracy": 0.4, "loss": 0.7, "error_long": 3.0},
        "b": {"accuracy": 0.6, "loss": 0.9, "error_long": 2.0},
    }
    assert better_of(forms, ["loss", "*error*"]) == {"accuracy": 0.6, "loss": 0.7, "error_long": 2.0}


@pytest.fixture
def start(video_folder, tmp_path):
    rows = [VideoRow(f"{i:02d}.mp4", 40 + i % 3, 25.0, 48, 64, decoders_ok=("pyav",)) for i in range(12)]
    Manifest(video_folder, tuple(rows)).save(tmp_path / "table.csv")
    fixed = ["task.placebo=false", f"data.root={video_folder}", f"data.list={tmp_path / 'table.csv'}"]

    def pretrain(name, *overrides, **options):
        return ssvid.pretrain(RECIPE, *fixed, *overrides, run_dir=tmp_path / name, show_progress=False, **options)

    return pretrain


def weights(result):
    return torch.load(result.checkpoint, weights_only=True)["state_dict"]


def test_a_run_reports_its_untrained_network_and_trains_as_it_would_without(start):
    told, silent = start("told"), start("silent", "monitor.untrained=false")
    for key, value in weights(told).items():
        assert torch.equal(value, weights(silent)[key]), key
    assert told.metrics == silent.metrics
    assert set(told.untrained) == {AS_INITIALIZED, ESTIMATED, "better"}
    assert set(told.untrained["better"]) == set(told.metrics)
    assert json.loads((told.run_dir / "results.json").read_text())["untrained"] == told.untrained
    assert f"(chance 0.50, untrained {told.untrained['better']['auc']:.3f})" in str(told)
    assert silent.untrained == {}
    assert told.versions["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert (told.num_held_out > 0, told.skipped_steps) == (True, 0)
    assert "untrained" not in str(silent)
    # What does not depend on the network is the same before and after; that the loss is not shows that it was trained.
    assert told.untrained["better"]["difference_auc"] == pytest.approx(told.metrics["difference_auc"])
    assert told.untrained[AS_INITIALIZED]["loss"] != told.metrics["loss"]


def test_a_resumed_run_keeps_its_untrained_row(start):
    whole = start("run")
    again = start("run", resume=True)
    assert again.untrained == whole.untrained


def test_without_held_out_videos_there_is_no_row(start):
    assert start("none", "data.val_fraction=0").untrained == {}
