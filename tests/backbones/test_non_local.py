"""Non-local blocks: a loop in double precision as an oracle, the identity at the start, keys that stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ssvid.backbones import create_backbone, initialize_backbone
from ssvid.backbones.non_local import NonLocalBlock
from ssvid.errors import RecipeError
from ssvid.testing import check_backbone

# The first two in every run, their sisters in the slow ring.
NETWORKS = (
    "r3d_18",
    "i3d_resnet18",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("mc3_18", "r2plus1d_18")),
)


def test_the_block_equals_a_loop_over_all_pairs_of_cells() -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(6).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(block.norm.running_mean)
    nn.init.uniform_(block.norm.running_var, 0.5, 2.0)
    x = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        got = block(x).numpy()

    state = {key: value.numpy() for key, value in block.state_dict().items()}

    def project(name: str, value: np.ndarray) -> np.ndarray:
        return state[f"{name}.weight"].reshape(-1, len(value)) @ value + state[f"{name}.bias"]

    values = x.numpy()
    want = values.copy()
    scale = state["norm.weight"] / np.sqrt(state["norm.running_var"] + block.norm.eps)
    for b in range(2):
        phi, g = ({}, {})
        for name, cells in (("phi", phi), ("g", g)):
            for t in range(2):
                for i in range(2):  # three rows are two pairs, the last cut short
                    for j in range(2):
                        block_values = values[b, :, t, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(6, -1)
                        cells[t, i, j] = project(name, block_values.max(1))
        for t in range(2):
            for i in range(3):
                for j in range(4):
                    theta = project("theta", values[b, :, t, i, j])
                    weights = {key: math.exp(float(theta @ phi[key]) / math.sqrt(3)) for key in phi}
                    total = sum(weights.values())
                    y = sum(weights[key] / total * g[key] for key in g)
                    z = project("out", y)
                    want[b, :, t, i, j] += (z - state["norm.running_mean"]) * scale + state["norm.bias"]
    np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_network_is_the_one_without(name: str) -> None:
    """In training and in evaluation, bit by bit: the same seed gives the same weights beside."""
    clip = torch.rand(2, 3, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    with_blocks, without = initialize_backbone(name, {"num_non_local": 2}), initialize_backbone(name)
    own = [key for key in with_blocks.state_dict() if ".non_local1." in key]
    assert len(own) == 2 * (4 * 2 + 5)  # four convolutions, one normalization
    assert [key for key in with_blocks.state_dict() if key not in own] == list(without.state_dict())
    with torch.no_grad():
        for mode in (True, False):
            assert torch.equal(with_blocks.train(mode)(clip), without.train(mode)(clip))


def test_a_trained_block_lets_a_corner_see_the_other() -> None:
    """A cell of layer2 has seen 26 pixels around it by convolutions: not what lies 56 away."""
    network = initialize_backbone("r3d_18", {"num_non_local": 2}).eval()
    clip = torch.rand(1, 3, 1, 64, 64)
    other = clip.clone()
    other[..., 56:, 56:] = 0
    with torch.no_grad():
        fresh = [network(c, "layer2")[..., 0, 0] for c in (clip, other)]
        nn.init.ones_(network.get_parameter("layer2.non_local1.norm.weight"))
        trained = [network(c, "layer2")[..., 0, 0] for c in (clip, other)]
    assert torch.equal(*fresh)
    assert not torch.equal(*trained)


def test_where_the_blocks_of_the_paper_stand() -> None:
    """Sec. 4.1: 1 before the last block of res4, 5 and 10 in res3 and res4."""
    want = {
        1: ["layer3.non_local4"],
        5: ["layer2.non_local1", "layer2.non_local3", "layer3.non_local1", "layer3.non_local3", "layer3.non_local5"],
        10: [f"layer2.non_local{i}" for i in range(4)] + [f"layer3.non_local{i}" for i in range(6)],
    }
    for number, places in want.items():
        with torch.device("meta"):
            network = create_backbone("i3d_resnet50", num_non_local=number)
        found = [name for name, module in network.named_modules() if isinstance(module, NonLocalBlock)]
        assert found == places
        order = [name for name, _ in network.get_submodule("layer3").named_children()]
        assert order.index(places[-1].split(".")[1]) == order.index(places[-1][-1]) + 1


def test_a_number_that_no_place_is_known_for_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"i3d_resnet50: num_non_local \(2\) must be one of 0, 1, 5, 10"):
        create_backbone("i3d_resnet50", num_non_local=2)
    with pytest.raises(RecipeError, match=r"r3d_18: num_non_local \(True\) must be one of 0, 1, 2"):
        create_backbone("r3d_18", num_non_local=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("r3d_18", 2), ("i3d_resnet18", 1), ("i3d_resnet50", 5)])
def test_it_keeps_the_contract(name: str, number: int) -> None:
    check_backbone(name, num_non_local=number)
