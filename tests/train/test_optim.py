"""The learning-rate rule, the schedules by hand, which parameters decay."""

import math

import pytest
import torch
from torch import nn

from ssvid.errors import RecipeError
from ssvid.train.config import OptimConfig, PretrainOptimConfig
from ssvid.train.optim import build_optimizer, build_schedule, check_optim, lr_factor, scaled_lr


def test_lr_scales_with_the_global_batch():
    assert scaled_lr(OptimConfig(base_lr=0.1), 64) == pytest.approx(0.025)
    assert scaled_lr(OptimConfig(base_lr=0.1), 256) == pytest.approx(0.1)


def test_cosine_with_warmup_by_hand():
    factor = lr_factor(OptimConfig(epochs=10, warmup_epochs=2), steps_per_epoch=5)
    assert [factor(s) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert factor(10) == 1.0
    assert factor(30) == pytest.approx(0.5 * (1 + math.cos(math.pi * 20 / 40)))
    assert factor(50) == pytest.approx(0.0)


def test_step_schedule_by_hand():
    config = OptimConfig(epochs=10, warmup_epochs=0, schedule="step", step_epochs=[4, 8], step_gamma=0.1)
    factor = lr_factor(config, steps_per_epoch=3)
    assert [factor(s) for s in (0, 11, 12, 23, 24, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_fraction_of_an_epoch_can_warm_up():
    assert lr_factor(OptimConfig(epochs=1, warmup_epochs=0.5, schedule="constant"), 8)(1) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_and_normalization_do_not_decay_and_frozen_parameters_are_left_out(name):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].weight.requires_grad_(False)
    decayed, plain = build_optimizer(net, nn.Identity(), OptimConfig(name=name, weight_decay=0.3), 0.1).param_groups
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0.0
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,), (2,)]


def test_the_schedule_state_is_plain():
    net = nn.Linear(2, 2)
    config = OptimConfig()
    state = build_schedule(build_optimizer(net, nn.Identity(), config, 0.1), config, 3).state_dict()
    assert not any(callable(value) for value in state["lr_lambdas"])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            OptimConfig(name="adamv"),
            r"optim.name \('adamv'\) must be one of sgd, adam, adamw \(did you mean 'adam'\?\)",
        ),
        (
            OptimConfig(schedule="cosin"),
            r"optim.schedule \('cosin'\) must be one of cosine, step, constant \(did you mean 'cosine'\?\)",
        ),
        (OptimConfig(epochs=0), r"optim.epochs \(0\) must be at least 1"),
        (OptimConfig(base_lr=0.0), r"optim.base_lr \(0.0\) must be above 0"),
        (
            OptimConfig(epochs=3, warmup_epochs=5),
            r"optim.warmup_epochs \(5\) must lie between 0 and optim.epochs \(3\)",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config, text):
    with pytest.raises(RecipeError, match=text):
        check_optim(config)


def test_what_belongs_to_the_task_learns_so_many_times_as_fast():
    backbone, task = nn.Linear(3, 2), nn.Linear(2, 4)
    config = PretrainOptimConfig(name="sgd", base_lr=0.1, momentum=0.0, weight_decay=0.0, head_lr_factor=5.0)
    before = [module.weight.detach().clone() for module in (backbone, task)]
    optimizer = build_optimizer(backbone, task, config, 0.1)
    task(backbone(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    for module, old, lr in zip((backbone, task), before, (0.1, 0.5), strict=True):
        assert torch.allclose(module.weight, old - lr * module.weight.grad)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    one_rate = build_optimizer(backbone, task, PretrainOptimConfig(), 0.1).param_groups
    assert [len(group["params"]) for group in one_rate] == [2, 2]  # as checkpoints of before have them
