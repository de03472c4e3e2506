"""What every head has in common, and which heads fit which networks."""

import re
from dataclasses import replace

import pytest
import torch

from ssvid.backbones import Backbone, create_backbone, initialize_backbone
from ssvid.bounds import rules_of
from ssvid.classifiers.attentive import AttentiveHead, TemporalAttentionHead
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.fusion import AverageHead, LateConcatHead, LatePoolHead
from ssvid.classifiers.heads import build_head
from ssvid.classifiers.linear import LinearHead
from ssvid.classifiers.protocol import FRAME_HEADS, FinetuneProtocol, resolve_finetune_protocol
from ssvid.classifiers.recurrent import RecurrentHead
from ssvid.errors import RecipeError

KINDS = {
    "linear": LinearHead,
    "attentive": AttentiveHead,
    "average": AverageHead,
    "late_concat": LateConcatHead,
    "late_pool": LatePoolHead,
    "lstm": RecurrentHead,
    "attention": TemporalAttentionHead,
}
PLAIN = FinetuneProtocol(num_frames=4, dropout=0.0)
of_every_head = pytest.mark.parametrize("kind", KINDS)


def test_every_legal_name_is_tried_here():
    assert set(rules_of(FinetuneProtocol)["head"][0].legal) == set(KINDS)
    assert set(FRAME_HEADS) == set(KINDS) - {"linear", "attentive"}


@of_every_head
def test_a_head_depends_on_its_seed_alone(kind):
    protocol = replace(PLAIN, head=kind)
    first = build_head(protocol, 16, 3, seed=1)
    torch.rand(3)
    again, other = build_head(protocol, 16, 3, seed=1), build_head(protocol, 16, 3, seed=2)
    assert type(first) is KINDS[kind]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    before = torch.random.get_rng_state()
    build_head(protocol, 16, 3, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


@of_every_head
@pytest.mark.parametrize("lowered", [False, True], ids=["float32", "bfloat16"])
def test_every_weight_learns_in_full_and_in_mixed_precision(kind, lowered):
    torch.manual_seed(0)
    head = build_head(replace(PLAIN, head=kind), 16, 3, seed=1)
    for q in head.parameters():
        q.data += 0.1 * torch.randn_like(q)
    map_BCTHW = torch.randn(5, 16, 4, 2, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        logits_BK = head(map_BCTHW).float()
    torch.nn.functional.cross_entropy(logits_BK, torch.tensor([0, 1, 2, 0, 1])).backward()
    assert all(q.grad is not None and q.grad.abs().max() > 0 for q in head.parameters())
    torch.testing.assert_close(logits_BK, head(map_BCTHW), rtol=0.05, atol=0.05)


def test_width_and_layers_are_those_asked_for():
    def sizes(kind, **options):
        return [tuple(q.shape) for q in build_head(replace(PLAIN, head=kind, **options), 16, 3, seed=0).parameters()]

    assert sizes("late_pool")[0] == (16, 16) and sizes("late_pool", head_width=7)[0] == (7, 16)
    assert sizes("late_concat")[0] == (16, 64) and sizes("late_concat", head_width=7)[0] == (7, 64)
    assert sizes("lstm", head_width=7)[0] == (28, 16)
    assert len(sizes("lstm", head_layers=2)) == len(sizes("lstm")) + 4
    assert len(sizes("attention", head_layers=3)) == len(sizes("attention")) + 24


# ---- with a network


@pytest.fixture(scope="module")
def of_frames() -> Backbone:
    return initialize_backbone("resnet18", {}, seed=0).eval()


@pytest.mark.parametrize(("kind", "is_blind"), [("average", True), ("late_pool", True), ("late_concat", False)])
def test_a_network_of_frames_is_as_blind_to_their_order_as_its_head(of_frames, kind, is_blind):
    protocol = resolve_finetune_protocol(replace(PLAIN, head=kind), of_frames.info)
    task = Classification(protocol, of_frames.info, classes=("a", "b", "c"), chance=1 / 3, seed=0).eval()
    task.head.classifier.weight.data *= 100
    clips_BCTHW = torch.rand(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gap = (
            (task.logits(clips_BCTHW[:, :, [2, 0, 3, 1]], of_frames) - task.logits(clips_BCTHW, of_frames)).abs().max()
        )
    assert (gap.item() < 1e-4) is is_blind


def refused(network: Backbone, **changes) -> str:
    with pytest.raises(RecipeError) as caught:
        resolve_finetune_protocol(replace(PLAIN, **changes), network.info, per_frame=network.per_frame)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", FRAME_HEADS)
def test_a_head_over_frames_is_refused_where_the_network_has_folded_time_away(of_frames, kind):
    said = refused(initialize_backbone("tiny3d", {"width": 2}, seed=0), head=kind, num_frames=16)
    assert (
        f"finetune.head ('{kind}') needs a map for each frame, and backbone tiny3d has at stage4 one for every" in said
    )
    assert "Set finetune.head=linear, or take a network that sees frames (resnet18; ssvid backbones)." in said
    resolve_finetune_protocol(replace(PLAIN, head=kind), of_frames.info)


def test_a_stage_before_time_is_folded_away_is_named_and_can_be_taken():
    network = create_backbone("r3d_18")
    named = re.search(r"Or set finetune.stage=(\w+), which has one for each frame", refused(network, head="lstm"))
    assert named[1] == "layer1" and network.info.stage(named[1]).stride_time == 1
    taken = resolve_finetune_protocol(replace(PLAIN, head="lstm", stage=named[1]), network.info, per_frame=False)
    assert taken.stage == named[1]


def test_a_single_frame_is_not_one_where_frames_saw_each_other():
    network = initialize_backbone("tiny3d", {"width": 2, "stride_time": 1}, seed=0)
    assert "classifies single frames, and backbone tiny3d lets frames see each other" in refused(
        network, head="average"
    )
    assert "Or set finetune.stage" not in refused(network, head="average")
    resolve_finetune_protocol(replace(PLAIN, head="late_pool"), network.info, per_frame=False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"head": "lstm", "num_frames": 1},
            r"finetune.num_frames \(1\) must be at least 2 for finetune.head=lstm, which brings frames together. Set "
            r"finetune.num_frames=16",
        ),
        ({"head_width": 8}, r"head_width \(8\) is for finetune.head=late_concat or late_pool or lstm. Set .*=0"),
        ({"head": "attention", "head_width": 8}, r"head_width \(8\) is for"),
        (
            {"head": "late_pool", "head_layers": 2},
            r"head_layers \(2\) is for finetune.head=lstm or attention. Set .*=1",
        ),
        ({"head": "lstm", "head_layers": 0}, r"head_layers \(0\) must be at least 1. Set finetune.head_layers=1"),
        ({"head": "lsmt"}, r"head \('lsmt'\) must be one of .* \(did you mean 'lstm'\?\)"),
        ({"head": "lstm", "head_norm": "batch"}, r"head_norm \('batch'\) is for finetune.head=linear"),
    ],
)
def test_what_does_not_fit_a_head_is_refused_with_the_way_out(of_frames, changes, text):
    assert re.search(text, refused(of_frames, **changes))


def test_numbers_of_heads_of_older_versions_are_told_as_those_told_them():
    assert "head_width" not in PLAIN.as_dict() and "head_layers" not in PLAIN.as_dict()
    told = replace(PLAIN, head="lstm", head_width=32, head_layers=2).as_dict()
    assert (told["head"], told["head_width"], told["head_layers"]) == ("lstm", 32, 2)
    assert replace(PLAIN, head="lstm").metric == "finetune"
    assert [replace(PLAIN, head=kind, frozen=True).metric for kind in ("linear", "average")] == [
        "linear",
        "average_probe",
    ]
