"""Latent prediction: loss, targets and teacher against float64 loops, hidden pixels that nothing sees, what is exported, a collapse."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ssvid
from pretext_tasks.latent_prediction import (
    LatentPrediction,
    LatentPredictionConfig,
    WholeClips,
    beyond_position,
    by_position,
    explained,
    momentum_at,
    normalized,
    prediction_errors,
)
from ssvid.backbones import create_backbone
from ssvid.backbones.contract import without_weights
from ssvid.composite import CompositeConfig, CompositeTask, Member
from ssvid.errors import RecipeError
from ssvid.evals.online import _EveryEpochs
from ssvid.exports import export, load_backbone
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task, refusal_of
from ssvid.train.monitors import read_validations
from ssvid.types import Ticket, VideoInfo
from ssvid.weights.checkpoints import read_checkpoint
from tests.conftest import held_out_by_name

SMALL = LatentPredictionConfig(
    num_frames=4, stride_frames=2, frame_px=16, momentum=0.5, predictor_width=16, predictor_depth=1
)
VIT = {"variant": "mini", "num_frames": 4, "size_px": 16, "patch_px": 4}
GRID, N, D = (2, 4, 4), 32, 96


def built(config=SMALL):
    torch.manual_seed(0)
    backbone = create_backbone("vit", **VIT)
    task = LatentPrediction(config, backbone.info)
    task.setup(backbone)
    return task, backbone


def batch_of(num=3, clips=None):
    if clips is None:
        clips = torch.randint(0, 256, (num, 4, 3, 16, 16), generator=torch.manual_seed(1)).byte()
    tickets = [Ticket(0, 0, 0, i) for i in range(num)]
    batch = {"clips": clips, "tickets": torch.tensor(tickets), "video_numbers": torch.arange(num)[:, None]}
    return batch, BatchRandom.of(0, tickets)


def cells_of(clips_BCTHW):
    """The pixels of each cell: (B, N, values)."""
    B = len(clips_BCTHW)
    cut = clips_BCTHW.reshape(B, 3, 2, 2, 4, 4, 4, 4)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, N, -1)


def predictions(task):
    """What the predictor says, as it says it: a list that fills."""
    said = []
    task.predictor.register_forward_hook(lambda module, inputs, output: said.append(output))
    return said


# ---- loss and measures


def test_targets_are_normalized_token_by_token():
    tokens = torch.randn(2, 3, 5, generator=torch.manual_seed(2)) * 4 + 1
    found = normalized(tokens)
    for b in range(2):
        for n in range(3):
            values = tokens[b, n].double().tolist()
            mean = sum(values) / 5
            variance = sum((v - mean) ** 2 for v in values) / 5
            expected = [(v - mean) / (variance + 1e-5) ** 0.5 for v in values]
            assert found[b, n].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("power", [1.0, 2.0, 1.5])
def test_errors_by_a_loop(power):
    said, target = (torch.randn(2, 3, 4, generator=torch.manual_seed(seed)) for seed in (3, 4))
    found = prediction_errors(said, target, power)
    for b in range(2):
        for m in range(3):
            errors = [abs(float(said[b, m, d]) - float(target[b, m, d])) ** power for d in range(4)]
            assert float(found[b, m]) == pytest.approx(sum(errors) / 4 / power, rel=1e-5)
    assert torch.equal(prediction_errors(target, target, power), torch.zeros(2, 3))


def test_explained_by_hand():
    found = explained(torch.tensor([0.0, 0.5, 2.0, 0.7]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert found.tolist() == [1.0, 0.5, -1.0, 0.0]


def test_the_answer_0_costs_the_mean_absolute_value_of_a_gaussian():
    target = normalized(torch.randn(1, 200, 400, generator=torch.manual_seed(5)))
    assert float(prediction_errors(torch.zeros_like(target), target, 1).mean()) == pytest.approx(
        (2 / np.pi) ** 0.5, abs=5e-3
    )


def test_the_loss_is_that_of_the_hidden_cells_averaged_over_both_masks():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    said = predictions(task)
    with torch.no_grad():
        output = task(batch, backbone.eval())
        target = task.teacher["backbone"](batch["clips"]).flatten(2).transpose(1, 2).double()
    target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    sums = np.zeros((2, 3))  # of what is said, and 0; by sample
    every = D // 32
    squares, mean = np.zeros(3), target.mean(dim=0)  # of what is said, 0, and the means of cells; of every third value
    for mask in range(2):
        for b in range(3):
            hidden = batch["hidden"][b, mask].nonzero().flatten()
            guesses = [said[mask][b].double(), torch.zeros(len(hidden), D), mean[hidden]]
            for i, guess in enumerate(guesses):
                squares[i] += float((guess - target[b, hidden])[:, ::every].square().sum())
            for i, guess in enumerate(guesses[:2]):
                sums[i, b] += float((guess - target[b, hidden]).abs().mean()) / 2
    assert output.loss.item() == pytest.approx(sums[0].mean(), rel=1e-5)
    assert output.metrics["explained"].tolist() == pytest.approx((1 - sums[0] / sums[1]).tolist(), abs=1e-4)
    whole = task.epoch_metrics()
    for name, ratio in (("by", squares[2] / squares[1]), ("beyond", squares[0] / squares[2])):
        metric = whole[f"explained_{name}_position"]
        metric.update(*output.scores[f"explained_{name}_position"])
        assert float(metric.compute()) == pytest.approx(1 - ratio, abs=1e-5)


def test_the_loss_is_0_where_the_target_is_said(monkeypatch):
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    target = task.targets_of(batch["target"])
    monkeypatch.setattr(
        task.predictor,
        "forward",
        lambda seen_BKD, seen_BK, wanted_BM, mask: torch.stack(
            [one_ND[wanted_M] for one_ND, wanted_M in zip(target, wanted_BM, strict=True)]
        ),
    )
    with torch.no_grad():
        output = task(batch, backbone.eval())
    assert output.loss.item() == 0.0 and output.metrics["explained"].tolist() == [1.0] * 3


def test_what_is_explained_beyond_position_by_hand():
    """Two clips, two cells, one value each: cell 0 is hidden in one mask, cell 1 in both. Means 2 and 0."""
    target = torch.tensor([[[1.0], [1.0]], [[3.0], [-1.0]]])
    counts, errors = torch.tensor([[1, 2], [1, 2]]), torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    assert beyond_position(target, counts, errors) == pytest.approx(1 - 3 / (1 + 2 + 1 + 2))
    assert by_position(target, counts, errors) == pytest.approx(1 - 6 / (1 + 2 + 9 + 2))
    nothing_left = torch.ones(2, 2, 1)
    assert beyond_position(nothing_left, counts, errors) == 0.0
    assert by_position(nothing_left, counts, errors) == 1.0
    assert by_position(0 * target, counts, errors) == 0.0


def test_an_answer_that_is_blind_to_the_clip_explains_nothing_beyond_position():
    """However well it is chosen: the best is the mean of each cell."""
    target = torch.randn(5, 7, 3, generator=torch.manual_seed(1))
    hidden = torch.ones(5, 7)
    best = (target - target.mean(dim=0)).square().sum(dim=2)
    assert beyond_position(target, hidden, best) == pytest.approx(0.0, abs=1e-6)
    for seed in range(5):
        blind = target.mean(dim=0) + 0.3 * torch.randn(7, 3, generator=torch.manual_seed(seed))
        assert beyond_position(target, hidden, (target - blind).square().sum(dim=2)) < 0


# ---- what nobody may see


def test_no_cell_is_both_seen_and_asked_for_and_hidden_pixels_have_no_gradient():
    """The loss moves with the pixels of the context, and not at all with any other: their gradient is exactly zero."""
    config = replace(SMALL, num_blocks=(2,), block_scales=(0.3,))
    task, backbone = built(config)
    batch = task.train().augment(*batch_of())
    context, hidden = batch["context"][:, 0], batch["hidden"][:, 0]
    assert not (context & hidden).any() and (context.sum(1) == context[0].sum()).all() and hidden[0].any()
    shown = batch["clips"].clone().requires_grad_()
    task(batch | {"clips": shown}, backbone).loss.backward()
    moved = cells_of(shown.grad).abs().amax(dim=2)
    assert torch.equal(moved[~context], torch.zeros(int((~context).sum())))
    assert bool((moved[context] > 0).all())


def test_pixels_that_are_hidden_do_not_change_features_of_the_context():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    other = batch_of(clips=torch.randint(0, 256, (3, 4, 3, 16, 16), generator=torch.manual_seed(9)).byte())
    others = task.augment(*other)["clips"]
    for mask in range(2):
        context_BN = batch["context"][:, mask]
        painted = context_BN.view(3, 1, *GRID)
        for axis, stride in zip((2, 3, 4), (2, 4, 4), strict=True):
            painted = painted.repeat_interleave(stride, dim=axis)
        mixed = torch.where(painted, batch["clips"], others)
        with torch.no_grad():
            one, two = (backbone.eval()(clips, None, keep_BN=context_BN) for clips in (batch["clips"], mixed))
        assert torch.equal(one, two)


def test_the_predictor_does_not_mind_in_which_order_tokens_come_and_knows_the_kind_of_mask():
    task, _ = built()
    draw = torch.Generator().manual_seed(0)
    seen, places = torch.randn(2, 8, D, generator=draw), torch.randperm(N, generator=draw).expand(2, -1)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    with torch.no_grad():
        assert torch.equal(task.predictor.asked, torch.zeros(2, 16))
        task.predictor.asked[1] += torch.randn(16, generator=draw)
        one = task.predictor(seen, places[:, :8], places[:, 8:], 0)
        other = task.predictor(seen[:, order], places[:, :8][:, order], places[:, 8:], 0)
        second = task.predictor(seen, places[:, :8], places[:, 8:], 1)
    assert torch.allclose(one, other, atol=1e-5) and not torch.allclose(one, second, atol=1e-3)


def test_a_placebo_has_the_teacher_see_another_video_and_changes_nothing_else():
    task, _ = built()
    batch = task.train().augment(*batch_of())
    changed = task.placebo(batch, np.random.default_rng(0))
    assert {key for key in batch if not torch.equal(batch[key], changed[key])} == {"target"}
    for b in range(3):
        assert any(torch.equal(changed["target"][b], batch["target"][o]) for o in range(3) if o != b)


def test_masks_and_answers_are_the_same_however_the_batch_is_cut():
    task, backbone = built()
    task.eval(), backbone.eval()
    batch, _ = batch_of(4)
    tickets = [Ticket(0, 0, 3, i) for i in range(4)]
    found = []
    for part in (slice(0, 4), slice(0, 1), slice(1, 4)):
        cut = {key: value[part] for key, value in batch.items()}
        made = task.augment(cut, BatchRandom.of(0, tickets[part]))
        with torch.no_grad():
            found.append((made["hidden"], made["context"], task(made, backbone).metrics["explained"]))
    for whole, *parts in zip(*found, strict=True):
        assert torch.allclose(whole.float(), torch.cat(parts).float(), atol=1e-5)


# ---- the teacher


def test_the_teacher_begins_as_the_network_and_gets_no_gradient():
    task, backbone = built()
    teacher = task.exported_network(backbone)
    assert teacher is task.teacher["backbone"] and teacher is not backbone
    state = backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in teacher.state_dict().items())
    task.train()(task.augment(*batch_of()), backbone).loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in task.teacher.parameters())
    assert not task.train().teacher.training and not teacher.training


def test_several_tasks_on_one_network_export_that_network():
    torch.manual_seed(0)
    backbone = create_backbone("vit", **VIT)
    members = [Member("latent", LatentPrediction(SMALL, backbone.info))]
    both = CompositeTask(members, CompositeConfig(), backbone.info)
    both.setup(backbone)
    assert both.exported == "" and both.exported_network(backbone) is backbone


def test_the_teacher_is_the_stated_moving_average():
    """Against the sum that the recursion comes to, in float64, over steps of a network that moves at random."""
    config = replace(SMALL, momentum=0.5, momentum_end=0.75, momentum_steps=4)
    task, backbone = built(config)
    averages = {key: value.double().clone() for key, value in backbone.state_dict().items()}
    draw = torch.Generator().manual_seed(7)
    for step in range(1, 7):
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw))
        task.after_step(backbone, step)
        m = [0.5625, 0.625, 0.6875, 0.75, 0.75, 0.75][step - 1]
        for key, value in backbone.state_dict().items():
            averages[key] = m * averages[key] + (1 - m) * value.double()
    for key, value in task.teacher["backbone"].state_dict().items():
        assert torch.allclose(value.double(), averages[key], atol=2e-6, rtol=1e-6), key


def test_momentum_by_hand():
    constant = replace(SMALL, momentum=0.99925)
    assert [momentum_at(constant, step) for step in (1, 1000)] == [0.99925] * 2
    rising = replace(SMALL, momentum=0.998, momentum_end=1.0, momentum_steps=100)
    assert [momentum_at(rising, step) for step in (50, 100, 500)] == pytest.approx([0.999, 1.0, 1.0], abs=1e-12)


# ---- a run: what is exported, going on, and a collapse

RUN = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"root": "???", "index_workers": 1},
    "backbone": {"name": "vit", "options": VIT},
    "task": {
        "name": "latent_prediction",
        "options": {
            "num_frames": 4,
            "stride_frames": 1,
            "frame_px": 16,
            "momentum": 0.9,
            "predictor_width": 16,
            "predictor_depth": 1,
        },
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False},
}


@pytest.fixture(scope="module")
def ten_held_out(video_folder, tmp_path_factory):
    return held_out_by_name(video_folder, tmp_path_factory.mktemp("lists") / "list.csv", 10)


@pytest.fixture(scope="module")
def whole(ten_held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return ssvid.pretrain(RUN, *ten_held_out, "trainer.save_every_steps=1", run_dir=folder, show_progress=False)


def teacher_of(path):
    cut = "teacher.backbone."
    state = read_checkpoint(path).task_state
    return {key.removeprefix(cut): value for key, value in state.items() if key.startswith(cut)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_teacher_is_what_is_loaded_exported_and_started_from(whole, ten_held_out, tmp_path):
    found = read_checkpoint(whole.checkpoint)
    teacher = teacher_of(whole.checkpoint)
    assert not same(teacher, found.backbone_state) and same(found.exported_state, teacher)
    export(whole.checkpoint, tmp_path / "export", program=False)
    for spec in (whole.checkpoint, whole.run_dir, tmp_path / "export"):
        backbone = load_backbone(spec)
        assert same(dict(backbone.state_dict()), teacher)
        assert backbone.provenance["exported"] == "teacher.backbone"
        assert backbone.provenance.to_row()["exported"] == "teacher.backbone"
    card = (tmp_path / "export" / "README.md").read_text()
    assert "These are the weights of `teacher.backbone` of the task: a copy that followed the trained network" in card
    config = load_recipe(RUN, [*ten_held_out, f"init_from={whole.run_dir}"]).recipe
    started, task = build_networks(config)
    assert same(dict(started.state_dict()), teacher) and same(dict(task.teacher["backbone"].state_dict()), teacher)


def test_a_torn_run_goes_on_to_the_same_teacher(whole, ten_held_out, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    follow = LatentPrediction.after_step

    def stop_after_the_third(self, backbone, global_step):
        follow(self, backbone, global_step)
        if global_step == 3:
            raise Stopped

    words = (*ten_held_out, "trainer.save_every_steps=1")
    with monkeypatch.context() as patched:
        patched.setattr(LatentPrediction, "after_step", stop_after_the_third)
        with pytest.raises(Stopped):
            ssvid.pretrain(RUN, *words, run_dir=tmp_path / "torn", show_progress=False)
    torn = ssvid.pretrain(RUN, *words, run_dir=tmp_path / "torn", resume=True, show_progress=False)
    one, other = (read_checkpoint(result.checkpoint) for result in (whole, torn))
    assert one.meta["global_step"] == other.meta["global_step"] > 3
    assert same(one.task_state, other.task_state) and same(one.backbone_state, other.backbone_state)
    assert same(dict(load_backbone(torn.run_dir).state_dict()), teacher_of(whole.checkpoint))


def test_the_monitor_watches_the_teacher(whole):
    """With whole clips: the last validation's numbers are those of the exported network, and not warned of."""
    found = read_validations(whole.run_dir / "metrics.jsonl")
    assert all(1 <= v.metrics["effective_rank"] <= 10 and -1 <= v.metrics["mean_cosine"] <= 1 for v in found)
    assert found[-1].metrics["feature_std"] > 0.01 / D**0.5


def test_scores_while_training_are_those_of_the_teacher():
    task, backbone = built()
    scored = []

    class Scores(_EveryEpochs):
        every_epochs = 1

        def score(self, network, device):
            scored.append(network)
            return {}

    trainer = SimpleNamespace(
        current_epoch=0, is_global_zero=True, loggers=[], strategy=SimpleNamespace(barrier=lambda: None)
    )
    Scores().on_train_epoch_end(trainer, SimpleNamespace(task=task, backbone=backbone, device="cpu"))
    assert scored == [task.teacher["backbone"]]


def test_a_collapse_is_caught(ten_held_out, tmp_path):
    """The teacher is the network itself and the learning rate absurd: soon all clips have the same features, and the run says so."""
    absurd = ["task.options.momentum=0", "optim.base_lr=30", "optim.epochs=4", "monitor.chance_epochs=0"]
    result = ssvid.pretrain(RUN, *ten_held_out, *absurd, run_dir=tmp_path / "absurd", show_progress=False)
    last = read_validations(result.run_dir / "metrics.jsonl")[-1].metrics
    assert "the features have collapsed" in result.advice["warnings"]["collapse"]
    assert last["mean_cosine"] > 0.99


# ---- sampling, contract, mistakes


def test_clips_lie_anywhere_and_rectangles_are_as_large_as_stated():
    maker = WholeClips(replace(SMALL, min_area=0.5), True)
    video = VideoInfo("v.mp4", 30, 25.0, 40, 60)
    starts = set()
    for seed in range(200):
        draw = np.random.default_rng(seed)
        plan = maker.plan(video, draw, draw)
        assert np.diff(plan.views[0]).tolist() == [2, 2, 2]
        starts.add(int(plan.views[0][0]))
        (_, _, height, width) = maker.cuts(40, 60, plan, draw, draw).wanted[0].rectangles[0]
        assert 0.45 * 2400 < height * width <= 2400 and 0.7 < width / height < 1.55
    assert starts == set(range(30 - 6))
    (rectangle,) = WholeClips(SMALL, False).cuts(40, 60, plan, draw, draw).wanted[0].rectangles
    assert rectangle == (0, 10, 40, 40)


@pytest.mark.parametrize("options", [{}, {"num_blocks": (3,), "block_scales": (0.2,), "power": 2.0, "flip": False}])
def test_the_contract_holds(options):
    check_task("latent_prediction", num_frames=4, frame_px=32, predictor_width=16, predictor_depth=1, **options)


def test_pictures_show_what_is_seen_and_how_much_is_explained():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    with torch.no_grad():
        output = task(batch, backbone.eval())
    picture = task.visualize(batch, output)["cells"]
    assert picture.dtype == np.uint8 and picture.shape == (6 * 82, 122 + 2 * 82, 3)
    context_N, hidden_N = (batch[name][0, 0] for name in ("context", "hidden"))
    painted = task._painted(batch["clips"][0], context_N, hidden_N, torch.ones(int(hidden_N.sum())))
    cells, true = cells_of(painted[None])[0], cells_of(batch["clips"][:1])[0]
    assert torch.equal(cells[context_N], true[context_N])
    assert len(cells[hidden_N].unique(dim=0)) == 1 and (cells[~context_N & ~hidden_N] == 0.5).all()


@pytest.mark.parametrize(
    ("recipe", "grid"),
    [("pretrain/latent_prediction_vit_l_v_jepa", (8, 14, 14)), ("pretrain/latent_prediction_vit_s_gpu", (8, 14, 14))],
)
def test_the_recipes_are_in_the_papers_setting(recipe, grid):
    loaded = load_recipe(recipe, allow_missing=True).recipe
    config = make_task_config(loaded.task.name, loaded.task.options)
    with torch.device("meta"):
        info = create_backbone(loaded.backbone.name, **loaded.backbone.options).info
    task = LatentPrediction(config, info)
    assert task.grid == grid and [tuple(blocks[:2]) for blocks in task.masks] == [(8, 0.15), (2, 0.7)]
    assert len(task.predictor.blocks) == 12 and task.predictor.blocks[0].attn.num_heads == 12


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"block_scales": (0.15, 1.0)}, r"block_scales .* must be a list, each item above 0 and below 1"),
        ({"num_blocks": (8,)}, r"num_blocks \(8,\) and block_scales \(0.15, 0.7\) must have as many entries"),
        ({"block_aspect": (1.5, 0.75)}, r"block_aspect .* must be in rising order"),
        ({"frame_px": 18}, r"frame_px \(18\) must be a multiple of 4, the side of a cube of backbone vit"),
        ({"frame_px": 4}, r"frame_px \(4\) must be at least 8: with one cell to a frame"),
        ({"num_frames": 5}, r"num_frames \(5\) must be a multiple of 2, the side of a cube of backbone vit"),
        ({"predictor_width": 12}, r"predictor_width \(12\) must be a multiple of 8"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        built(replace(SMALL, **options))


def test_a_network_without_tokens_is_refused_in_one_paragraph():
    told = refusal_of("latent_prediction", without_weights("tiny3d"))
    assert "backbone tiny3d has no tokens to leave out; take one that has, such as vit" in told and "\n" not in told
    assert refusal_of("latent_prediction", without_weights("vit")) == ""
