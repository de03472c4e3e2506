"""Which pretext tasks train a network is found by trying, and is what both say themselves."""

import pytest
import torch

from ssvid.backbones import create_backbone
from ssvid.backbones.contract import without_weights
from ssvid.cli import main
from ssvid.testing import ShapesOnly, refusal_of


@pytest.mark.parametrize(
    ("task", "backbone", "refusal"),
    [
        ("cycle_consistency", "resnet18", "task.options.frame_px (240) must be a multiple of 32"),
        ("cycle_consistency", "slow_fusion", "leave out the borders"),
        ("order_verification", "early_fusion", "task.options.frames_per_view (1) must be at least 10"),
        ("order_verification", "c3d", ""),
    ],
)
def test_a_task_trains_a_network_or_says_why_not(task, backbone, refusal):
    said = refusal_of(task, without_weights(backbone))
    assert refusal in said
    assert bool(said) == bool(refusal)


def test_options_of_the_network_count():
    assert "at least 10" in refusal_of("order_verification", without_weights("early_fusion"))
    assert "at least 4" in refusal_of("order_verification", without_weights("early_fusion", num_frames=4))


def test_shapes_are_those_of_the_network():
    model = without_weights("tiny3d", width=2)
    network, clip = create_backbone("tiny3d", width=2), torch.rand(1, 3, 8, 16, 16)
    names = network.info.stage_names
    shapes = [one.shape for one in ShapesOnly(model)(clip, names)]
    assert shapes == [one.shape for one in network(clip, names)]
    assert ShapesOnly(model).embed(clip).shape == network.embed(clip).shape


def test_the_page_of_a_network_tells_it(capsys, monkeypatch):
    monkeypatch.setattr(
        "ssvid.testing.refusal_of", lambda task, name: "" if task == "speediness" else f"task {task}: no."
    )
    assert main(["backbones", "early_fusion"]) in (0, None)
    told = capsys.readouterr().out
    assert "pretext tasks that train it, with the default options of both: speediness\n" in told
    assert "not colorization: no." in told
    assert "takes 10 frames, no more and no fewer, of 22 px or more" in told
