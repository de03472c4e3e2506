"""Heads side by side against heads trained one by one with torch's own layers and optimizer."""

import numpy as np
import pytest
import torch
from torch import nn

from ssvid.evals.linear_probe.head_bank import HeadSetting, Schedule, _batches, fit_bank, num_batches, rate
from ssvid.evals.linear_probe.logistic import fit_path

SETTINGS = [HeadSetting(0.05, 0.01), HeadSetting(0.5, 0.0), HeadSetting(0.2, 0.1)]


def data(num: int = 60, width: int = 7, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, num_classes, num)
    return (rng.normal(size=(num_classes, width))[codes] + rng.normal(size=(num, width))).astype(np.float32), codes


def torch_head(x, codes, setting: HeadSetting, schedule: Schedule, *, batch_norm: bool) -> nn.Module:
    """The same head by nn.Linear, nn.BatchNorm1d and torch.optim.SGD on the same batches."""
    linear = nn.Linear(x.shape[1], 4)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    norm = nn.BatchNorm1d(x.shape[1], affine=False) if batch_norm else nn.Identity()
    model = nn.Sequential(norm, linear)
    groups = [
        {"params": [linear.weight], "weight_decay": setting.weight_decay},
        {"params": [linear.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=setting.learning_rate, momentum=schedule.momentum)
    steps = schedule.epochs * num_batches(len(x), schedule.batch_size)
    for step, rows in enumerate(_batches(len(x), schedule, seed=3)):
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * rate(step / steps, schedule.shape)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(x)[rows]), torch.from_numpy(codes)[rows]).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("shape", ["cosine", "step"])
def test_each_head_is_the_one_that_torch_trains_alone(shape, batch_norm):
    x, codes = data()
    schedule = Schedule(epochs=6, batch_size=16, momentum=0.9, shape=shape)
    found = fit_bank(x, codes, 4, SETTINGS, schedule, seed=3, batch_norm=batch_norm)
    for fit, setting in zip(found, SETTINGS, strict=True):
        model = torch_head(x, codes, setting, schedule, batch_norm=batch_norm)
        expected = model(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(fit.scores(x.astype(np.float64)), expected, atol=2e-4)
        assert fit.problem == ""
        assert fit.num_iterations == 6 * 3


def test_a_head_does_not_depend_on_its_neighbors():
    x, codes = data()
    schedule = Schedule(epochs=3, batch_size=20)
    together = fit_bank(x, codes, 4, SETTINGS, schedule, seed=0)
    alone = fit_bank(x, codes, 4, SETTINGS[1:2], schedule, seed=0)[0]
    np.testing.assert_allclose(together[1].weights_KD, alone.weights_KD, atol=1e-6)


def test_trained_to_the_end_it_is_the_optimum_of_the_other_solver():
    """Full batches, so that there is no noise; the weight decay is the penalty of L-BFGS, the bias free in both."""
    x, codes = data()
    (sgd,) = fit_bank(x, codes, 4, [HeadSetting(0.5, 0.05)], Schedule(400, 60, 0.9, "cosine"), seed=0)
    (lbfgs,) = fit_path(x.astype(np.float64), codes, 4, [0.05], max_iterations=1000)
    difference = sgd.scores(x) - lbfgs.scores(x)
    np.testing.assert_allclose(difference - difference.mean(axis=1, keepdims=True), 0, atol=2e-3)


def test_a_head_that_diverges_is_said_and_leaves_the_others_alone():
    x, codes = data()
    bad, good = fit_bank(x, codes, 4, [HeadSetting(1e6, 1e3), SETTINGS[0]], Schedule(30, 20), seed=0)
    assert bad.problem == "diverged in 90 steps"
    assert good.problem == ""
    assert np.isfinite(good.weights_KD).all()


@pytest.mark.parametrize(("rows", "batch", "expected"), [(10, 3, 3), (9, 3, 3), (11, 3, 3), (2, 5, 1), (2047, 1024, 1)])
def test_every_epoch_holds_every_row_once_in_batches_none_of_which_is_small(rows, batch, expected):
    assert num_batches(rows, batch) == expected
    batches = list(_batches(rows, Schedule(epochs=2, batch_size=batch), seed=0))
    assert len(batches) == 2 * expected
    first, second = torch.cat(batches[:expected]), torch.cat(batches[expected:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(rows))
    assert rows < 4 or first.tolist() != second.tolist()
    assert min(map(len, batches)) >= min(rows, batch)


def test_rates_by_hand():
    assert [rate(p, "cosine") for p in (0.0, 0.5)] == pytest.approx([1.0, 0.5])
    assert rate(0.999, "cosine") < 1e-5
    assert [rate(p, "step") for p in (0.0, 0.59, 0.6, 0.79, 0.8, 0.99)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.gpu
def test_a_gpu_gives_the_heads_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x, codes = data()
    cpu, gpu = (fit_bank(x, codes, 4, SETTINGS, Schedule(5, 16), seed=0, device=d) for d in ("cpu", "cuda"))
    for a, b in zip(cpu, gpu, strict=True):
        np.testing.assert_allclose(a.scores(x), b.scores(x), atol=1e-3)
