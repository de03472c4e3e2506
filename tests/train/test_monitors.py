"""Oracles for the measures, hand-made histories for the warnings and the advice, real runs for the rest."""

import json
import math

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import BinaryAUROC

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.bounds import check
from ssvid.composite import CompositeConfig, CompositeTask, Member
from ssvid.errors import RecipeError
from ssvid.tasks import tasks
from ssvid.train.config import MonitorConfig
from ssvid.train.monitors import (
    Judge,
    Monitor,
    Validation,
    _Vectors,
    advice_text,
    gather_rows,
    read_validations,
    smaller_metrics,
    trained_map,
)
from ssvid.train.spread import effective_rank, feature_std, mean_cosine
from ssvid.weights.checkpoints import read_checkpoint
from tests.conftest import held_out_by_name
from tests.train.short_run import RECIPE

# ---- measures


def orthogonal(rows, rank, seed=0):
    """A matrix whose ``rank`` nonzero singular values are all 1."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(64, rank, generator=generator, dtype=torch.float64))[0]
    return left @ right.T


@pytest.mark.parametrize("rank", [1, 2, 7, 40])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank):
    assert effective_rank(orthogonal(200, rank)) == pytest.approx(rank, rel=1e-3)


def test_the_effective_rank_of_unequal_singular_values_by_hand():
    features = torch.diag(torch.tensor([3.0, 1.0]))  # p = 3/4, 1/4
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(features) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_a_collapsed_network_has_rank_1_and_no_spread():
    same = torch.rand(1, 32).expand(100, 32)
    assert effective_rank(same) == pytest.approx(1.0, abs=1e-3)
    assert feature_std(same) == pytest.approx(0.0, abs=1e-7)
    assert effective_rank(torch.zeros(10, 4)) == 0.0
    assert feature_std(torch.zeros(10, 4)) == 0.0


def test_features_spread_over_the_sphere_have_std_1_over_sqrt_d():
    features = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1 / math.sqrt(64), rel=0.01)


def test_the_mean_cosine_by_a_loop_over_pairs():
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(4)) + 0.3
    rows = features.double().tolist()
    lengths = [math.sqrt(sum(v * v for v in row)) for row in rows]
    cosines = [
        sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / lengths[i] / lengths[j]
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert mean_cosine(features) == pytest.approx(sum(cosines) / 42, rel=1e-6)
    assert mean_cosine(features[:1].expand(9, 5)) == pytest.approx(1.0, rel=1e-9)
    assert mean_cosine(torch.eye(6)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_scale_changes_neither(scale):
    features = torch.randn(50, 16, generator=torch.Generator().manual_seed(1)) + 0.5
    assert effective_rank(scale * features) == pytest.approx(effective_rank(features), rel=1e-6)
    assert feature_std(scale * features) == pytest.approx(feature_std(features), rel=1e-6)


# ---- warnings and advice

WIDTH = 64
HEALTHY = {"effective_rank": 20.0, "feature_std": 0.5 / math.sqrt(WIDTH)}


def history(*accuracies, num=400, **changes):
    """One validation per epoch; changes: name -> one value per epoch."""
    found = []
    for epoch, accuracy in enumerate(accuracies):
        own = {name: values[epoch] for name, values in changes.items()}
        metrics = {"accuracy": accuracy, "auc": 0.5, "loss": 1.0 - accuracy, "num_videos": float(num)}
        found.append(Validation(10 * (epoch + 1), epoch, metrics | HEALTHY | own))
    return found


def judge(**config):
    return Judge({"accuracy": 0.5, "auc": 0.5}, ["accuracy"], WIDTH, MonitorConfig(**config))


def test_a_healthy_run_is_not_warned_of():
    assert judge().warnings(history(0.5, 0.6, 0.7)) == {}
    assert judge().warnings([]) == {}


@pytest.mark.parametrize("metrics", [{"effective_rank": [1.9]}, {"feature_std": [0.009 / math.sqrt(WIDTH)]}])
def test_collapse_is_named_with_its_numbers(metrics):
    text = judge().warnings(history(0.9, **metrics))["collapse"]
    for part in ("features have collapsed", "effective rank", "warned below 2", "0.01 / sqrt(64)", "optim.base_lr"):
        assert part in text


def test_the_edge_of_collapse_is_no_collapse():
    assert not judge().warnings(history(0.9, effective_rank=[2.0], feature_std=[0.01 / math.sqrt(WIDTH)]))


def test_chance_is_warned_of_after_n_epochs_in_a_row():
    at, above = 0.52, 0.6  # 95 % interval over 400 videos: +-0.049
    assert "chance" not in judge(chance_epochs=3).warnings(history(at, at))
    text = judge(chance_epochs=3).warnings(history(above, at, at, at))["chance"]
    assert "accuracy has been at chance since epoch 2 (3 validations)" in text
    assert "over 400 videos contains 0.5" in text
    assert "chance" not in judge(chance_epochs=3).warnings(history(at, at, above, at))
    assert "chance" not in judge(chance_epochs=0).warnings(history(*[at] * 20))


def test_far_below_chance_is_not_at_chance_and_an_auc_has_no_binomial_interval():
    assert not judge(chance_epochs=1).warnings(history(0.3))
    assert not judge(chance_epochs=1).warnings(history(0.9))  # its auc stands at 0.5


def test_the_same_share_of_fewer_videos_is_at_chance():
    assert "chance" in judge(chance_epochs=1).warnings(history(0.6, num=20))


# ---- what is told from chance, by which metric


def aucs(*values, num, accuracy=0.5):
    """Validations with an AUC over ``num`` videos, each of which gives a case of both classes."""
    cases = {"auc": list(values)}
    cases |= {f"{kind}/auc": [float(num)] * len(values) for kind in ("num_positive", "num_negative")}
    return history(*[accuracy] * len(values), num=num, **cases)


def test_seven_videos_that_are_told_apart_without_a_mistake_are_no_reason_to_warn():
    rows = aucs(*[1.0] * 8, num=7, accuracy=0.857)
    assert judge().warnings(rows) == {}
    assert judge().advise(rows)["take"] == "last"


def test_too_few_videos_are_said_to_be_too_few_and_nothing_else():
    rows = aucs(*[0.6] * 8, num=7)
    assert list(judge().warnings(rows)) == ["few_videos"]
    text = judge().warnings(rows)["few_videos"]
    assert text.startswith("too few held-out videos to judge whether the task is being learned: auc 0.600")
    assert "over 7 videos contains 0.5" in text
    assert "not being learned" not in text
    advice = judge().advise(rows)
    assert advice["take"] == "last"
    assert "7 held-out videos are too few to judge" in advice["why"]


def test_an_area_tells_from_chance_what_accuracy_does_not():
    rows = aucs(*[0.735] * 8, num=52, accuracy=0.577)  # alone, 0.577 of 52 would be at chance
    assert judge().warnings(rows) == {}
    assert judge().advise(rows)["take"] != "neither"
    rows = aucs(*[0.53] * 8, num=52, accuracy=0.577)
    assert "auc has been at chance since epoch 1" in judge().warnings(rows)["chance"]
    assert judge().advise(rows)["take"] == "neither"
    assert "(auc 0.530) cannot be told from chance (0.5)" in judge().advise(rows)["why"]


def test_each_of_several_tasks_is_judged_by_its_own_metrics():
    several = Judge({"a/accuracy": 0.5, "b/auc": 0.5}, ["a/accuracy"], WIDTH, MonitorConfig(chance_epochs=1))
    seen = {"a/accuracy": 0.9, "b/auc": 0.5, "num_videos": 400.0, "num_positive/b/auc": 400, "num_negative/b/auc": 400}
    assert "b/auc has been at chance" in several.warnings([Validation(1, 0, seen)])["chance"]
    assert several.warnings([Validation(1, 0, seen | {"b/auc": 0.9})]) == {}


def test_a_run_that_ended_before_a_validation_does_not_say_that_nothing_was_held_out():
    ended = Judge({"accuracy": 0.5}, ["accuracy"], WIDTH, MonitorConfig(), num_held_out=8)
    assert ended.advise([])["why"].startswith("the run ended before the first validation, so its 8 held-out videos")
    assert judge().advise([])["why"].startswith("no videos were held out")


def test_advice_takes_the_best_where_the_last_is_worse():
    advice = judge().advise(history(0.6, 0.9, 0.7))
    assert advice["take"] == "best"
    assert (advice["best"]["epoch"], advice["last"]["epoch"], advice["metric"]) == (1, 2, "accuracy")
    assert "accuracy 0.900 after epoch 2, 0.700 after the last, epoch 3" in advice["why"]
    json.dumps(advice)


def test_advice_takes_the_last_where_it_is_the_best():
    assert judge().advise(history(0.6, 0.7, 0.9))["take"] == "last"


@pytest.mark.parametrize(("ranks", "take"), [([9.0, 5.0], "best"), ([5.0, 9.0], "last"), ([None, None], "last")])
def test_among_equals_the_effective_rank_decides(ranks, take):
    advice = judge().advise(history(0.71, 0.70, effective_rank=ranks))
    assert advice["take"] == take
    assert "no difference that 400 videos show" in advice["why"]


def test_advice_takes_neither_at_chance_or_when_both_have_collapsed():
    assert judge().advise(history(0.52, 0.51))["take"] == "neither"
    assert "cannot be told from chance" in judge().advise(history(0.52, 0.51))["why"]
    assert judge().advise(history(0.9, 0.8, effective_rank=[1.0, 1.0]))["take"] == "neither"
    assert judge().advise(history(0.9, 0.89, effective_rank=[9.0, 1.0]))["take"] == "best"


def test_advice_without_validation_and_without_a_kept_best():
    assert judge().advise([])["take"] == "last"
    advice = judge(keep_best=False).advise(history(0.9, 0.6))
    assert advice["take"] == "last"
    assert "keep_best is false" in advice["why"]


def test_a_loss_is_better_when_smaller_and_nan_is_never_best():
    rows = history(0.6, 0.9, math.nan)
    assert judge(best_metric="loss").best(rows).epoch == 1
    assert judge().best(rows).epoch == 1
    with pytest.raises(RecipeError, match=r"monitor.best_metric \('acuracy'\) must be auto .* Did you mean 'accuracy'"):
        judge(best_metric="acuracy").best(rows)


@pytest.mark.parametrize(
    ("name", "smaller", "best"),
    [
        ("perplexity", ("perplexity*",), 1),
        ("perplexity", (), 0),
        ("b/perplexity", ("b/perplexity*", "b/loss"), 1),
        ("loss_of_weight", (), 0),  # a name tells nothing
        ("b/loss", ("b/perplexity*", "b/loss"), 1),
    ],
)
def test_the_task_says_of_which_metrics_less_is_better(name, smaller, best):
    rows = history(0.6, 0.6, 0.6, **{name: [9.0, 2.0, 5.0]})
    ranked = Judge({"accuracy": 0.5}, ["accuracy"], WIDTH, MonitorConfig(best_metric=name), smaller=("loss", *smaller))
    assert ranked.best(rows).epoch == best


@pytest.mark.parametrize(
    ("task", "smaller", "larger"),
    [
        (
            "colorization",
            ["perplexity", "perplexity_copy_place", "loss"],
            ["accuracy", "gain_over_place", "moved_right"],
        ),
        (
            "cycle_consistency",
            ["relative_error", "error_long2", "angle_error_skip"],
            ["gain_over_center", "closed_long"],
        ),
        ("speediness", ["loss"], ["auc", "accuracy"]),
    ],
)
def test_the_tasks_say_which_of_their_metrics_are_better_when_smaller(task, smaller, larger):
    backbone = initialize_backbone("tiny3d", {"width": 2}, seed=0)
    task = initialize_task(task, backbone)
    patterns = smaller_metrics(task)
    for prefix, known in (("", patterns), ("x/", smaller_metrics(composite_of(task, backbone)))):
        found = Judge({}, [], WIDTH, MonitorConfig(), smaller=known)
        assert all(found._is_smaller_better(prefix + name) for name in smaller)
        assert not any(found._is_smaller_better(prefix + name) for name in larger)


def composite_of(task, backbone):
    return CompositeTask([Member("x", task)], CompositeConfig(), backbone.info)


def test_an_epoch_metric_that_says_so_itself_is_better_when_smaller():
    class Task:
        smaller_is_better = ("distance",)

        def epoch_metrics(self):
            return {"mse": MeanSquaredError(), "auc": BinaryAUROC()}

    assert set(smaller_metrics(Task())) == {"loss", "distance", "mse"}


def test_options_are_checked():
    with pytest.raises(RecipeError, match=r"monitor.max_vectors \(3\) must be at least 8"):
        check(MonitorConfig(max_vectors=3), "monitor.")
    with pytest.raises(RecipeError, match=r"monitor.chance_epochs \(-1\) must be at least 0"):
        check(MonitorConfig(chance_epochs=-1), "monitor.")


def test_advice_as_text():
    text = advice_text(judge().advise(history(0.6, 0.9, 0.7)) | {"warnings": {"chance": "said"}})
    assert text.startswith("warning: said\nadvice: take checkpoints/best.ckpt: accuracy 0.900")
    assert "not known:" in text
    assert advice_text({}) == ""


# ---- collecting


def test_the_map_of_the_trained_stage_is_found_however_it_was_asked_for():
    backbone = initialize_backbone("tiny3d", {"width": 2}, seed=0).eval()
    backbone.freeze_after("stage2")
    seen = []

    def hook(network, args, kwargs, output):
        seen.append(trained_map(network.default_stage, args, kwargs, output))

    backbone.register_forward_hook(hook, with_kwargs=True)
    clip = torch.rand(1, 3, 4, 16, 16)
    with torch.no_grad():
        expected = backbone(clip)
        backbone(clip, "stage2")
        backbone(clip, stage=["stage1", "stage2"])
        backbone(clip, "stage1")
    assert all(torch.equal(found, expected) for found in seen[:3])
    assert seen[3] is None


def test_no_more_vectors_are_kept_than_there_is_room_for():
    vectors = _Vectors(5)
    for _ in range(4):
        vectors.add(torch.ones(2, 3))
    assert torch.cat(vectors.rows).shape == (5, 3)


def test_rows_of_ranks_are_joined_in_order_whatever_their_number():
    parts = [torch.full((3, 2), 1.0), torch.full((1, 2), 2.0)]

    class Strategy:
        def all_gather(self, tensor):
            if tensor.ndim == 1:
                return torch.tensor([[3], [1]])
            assert tensor.shape == (3, 2)
            return torch.stack([parts[0], nn.functional.pad(parts[1], (0, 0, 0, 2), value=9.0)])

    class Trainer:
        world_size, strategy = 2, Strategy()

    assert torch.equal(gather_rows(Trainer(), parts[0]), torch.cat(parts))


# ---- in a run


def initialize_task(name, backbone):
    return tasks.get(name)(tasks.get(name).Config(), backbone.info)


SMALL = RECIPE | {
    "loader": {"global_batch": 8, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False},
    "monitor": {"chance_epochs": 1},
}


def weights(path):
    found = read_checkpoint(path)
    return found.backbone_state | {f"task.{k}": v for k, v in found.task_state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def ten_held_out(video_folder, tmp_path_factory):
    return held_out_by_name(video_folder, tmp_path_factory.mktemp("lists") / "list.csv", 10)


@pytest.fixture(scope="module")
def watched(ten_held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "watched"
    return ssvid.pretrain(SMALL, *ten_held_out, run_dir=folder, show_progress=False)


@pytest.fixture(scope="module")
def unwatched(ten_held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unwatched"
    off = ["monitor.features=false", "monitor.keep_best=false", "monitor.chance_epochs=0"]
    return ssvid.pretrain(SMALL, *ten_held_out, *off, run_dir=folder, show_progress=False)


def test_a_run_logs_what_an_own_computation_finds(watched):
    found = read_validations(watched.run_dir / "metrics.jsonl")
    assert [v.epoch for v in found] == [0, 1]
    assert all(v.metrics["num_videos"] == 10 for v in found)
    assert all(1 < v.metrics["effective_rank"] <= 16 for v in found)
    assert all(0 < v.metrics["feature_std"] <= 1 / 4 for v in found)


def test_watching_changes_no_weight(watched, unwatched):
    assert same(weights(watched.checkpoint), weights(unwatched.checkpoint))
    assert "effective_rank" not in (unwatched.run_dir / "metrics.jsonl").read_text()
    assert not (unwatched.run_dir / "checkpoints" / "best.ckpt").exists()


def test_the_best_checkpoint_is_that_of_the_best_validation(watched):
    rows = read_validations(watched.run_dir / "metrics.jsonl")
    best = max(rows, key=lambda v: (v.metrics["accuracy"], -v.epoch))
    found = read_checkpoint(watched.run_dir / "checkpoints" / "best.ckpt")
    assert found.meta["global_step"] == best.step == watched.advice["best"]["step"]
    assert found.meta["pretext_metrics"]["accuracy"] == best.metrics["accuracy"]


def test_the_warning_and_the_advice_stand_in_the_results(watched):
    results = json.loads((watched.run_dir / "results.json").read_text())
    assert results["advice"] == watched.advice
    assert watched.advice["take"] in ("best", "last", "neither")
    assert set(watched.advice["warnings"]) <= {"chance", "few_videos", "collapse"}
    assert "advice: take" in str(watched)


def test_a_resumed_run_knows_the_earlier_validations_and_says_nothing_twice(watched, tmp_path):
    class Trainer:
        strategy = type("S", (), {"broadcast": staticmethod(lambda value: value)})

    class Module:
        backbone = initialize_backbone("tiny3d", {"width": 2}, seed=0)
        task = initialize_task("speediness", backbone)

    said = []
    rows = read_validations(watched.run_dir / "metrics.jsonl")
    monitor = Monitor(MonitorConfig(chance_epochs=1), history=rows, best_path=tmp_path / "b", say=said.append)
    monitor.on_fit_start(Trainer, Module)
    assert monitor.advice()["best"] == watched.advice["best"]
    assert monitor.warned == watched.advice["warnings"]
    assert said == []


def test_resuming_a_finished_run_gives_the_same_advice(watched, ten_held_out):
    again = ssvid.pretrain(SMALL, *ten_held_out, run_dir=watched.run_dir, resume=True, show_progress=False)
    assert again.advice == watched.advice
