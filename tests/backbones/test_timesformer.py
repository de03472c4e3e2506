"""TimeSformer: its block against a loop in double precision, the keys and parameters of the paper's network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssvid.backbones import create_backbone, initialize_backbone
from ssvid.backbones.attention import SelfAttention, Variant
from ssvid.backbones.timesformer import DividedBlock
from ssvid.testing import check_backbone

SMALL = {"variant": "tiny", "num_frames": 4, "size_px": 32, "patch_px": 8}


def attend(attention: SelfAttention, query: Tensor, seen: list[Tensor]) -> Tensor:
    """What one token gets from those that it sees, head by head."""
    d = len(query) // attention.num_heads
    q, k, v = range(3)
    project = [attention.qkv(token).reshape(3, attention.num_heads, d) for token in seen]
    own = attention.qkv(query).reshape(3, attention.num_heads, d)
    heads = []
    for h in range(attention.num_heads):
        scores = [math.exp(float(own[q, h] @ token[k, h]) / math.sqrt(d)) for token in project]
        heads.append(sum(score / sum(scores) * token[v, h] for score, token in zip(scores, project, strict=True)))
    return attention.proj(torch.cat(heads))  # type: ignore[arg-type]


def test_the_block_equals_a_loop_over_tokens() -> None:
    torch.manual_seed(0)
    block = DividedBlock(Variant(6, 1, 2)).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    num_frames, num_patches = 3, 4
    class_token = torch.randn(1, 1, 6, dtype=torch.float64)
    tokens = torch.randn(1, num_frames, num_patches, 6, dtype=torch.float64)
    with torch.no_grad():
        got_class, got = block(class_token, tokens)
        x = tokens[0].clone()
        for p in range(num_patches):
            column = [block.temporal_norm1(tokens[0, t, p]) for t in range(num_frames)]
            for t in range(num_frames):
                x[t, p] += block.temporal_fc(attend(block.temporal_attn, column[t], column))
        after_time, summary = x.clone(), torch.zeros(6, dtype=torch.float64)
        for t in range(num_frames):
            frame = [block.norm1(token) for token in (class_token[0, 0], *after_time[t])]
            summary += attend(block.attn, frame[0], frame) / num_frames
            for p in range(num_patches):
                x[t, p] += attend(block.attn, frame[1 + p], frame)
        summary += class_token[0, 0]
        torch.testing.assert_close(got[0], x + block.mlp(block.norm2(x)), atol=1e-12, rtol=0)
        torch.testing.assert_close(got_class[0, 0], summary + block.mlp(block.norm2(summary)), atol=1e-12, rtol=0)


def test_parameters_and_keys_are_those_of_the_paper() -> None:
    """121.4 million (table 2 of the paper), with its classifier of 400 classes."""
    with torch.device("meta"):
        network = create_backbone("timesformer", variant="base")
    count = sum(p.numel() for p in network.parameters())
    d = 768
    attention = (3 * d * d + 3 * d) + (d * d + d)
    block = 2 * attention + (d * d + d) + (8 * d * d + 5 * d) + 3 * 2 * d
    assert count == 12 * block + (16 * 16 * 3 * d + d) + d + 197 * d + 8 * d + 2 * d
    assert count + 400 * d + 400 == pytest.approx(121.4e6, rel=0.005)
    keys = {key.replace("blocks.11.", "blocks.N.") for key in network.state_dict() if not key.startswith("blocks.")}
    assert keys == {
        *("cls_token", "pos_embed", "time_embed", "norm.weight", "norm.bias"),
        *("patch_embed.proj.weight", "patch_embed.proj.bias"),
    }
    modules = {key.split(".", 2)[2].rpartition(".")[0] for key in network.state_dict() if key.startswith("blocks.")}
    assert modules == {
        *("temporal_norm1", "temporal_attn.qkv", "temporal_attn.proj", "temporal_fc"),
        *("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"),
    }


def test_time_reaches_a_fresh_network_through_the_first_block_alone() -> None:
    network = initialize_backbone("timesformer", SMALL).eval()
    silent = [
        not block.get_parameter("temporal_fc.weight").any() for block in network.get_submodule("blocks").children()
    ]
    assert silent == [False] + [True] * 11


def test_positions_at_their_own_size_are_the_tables() -> None:
    network = initialize_backbone("timesformer", SMALL)
    got = network._positions((4, 4, 4)).reshape(4, 4, 4, -1)
    want = network.get_parameter("pos_embed")[0, 1 + 2 * 4 + 3] + network.get_parameter("time_embed")[0, 1]
    torch.testing.assert_close(got[1, 2, 3], want)
    assert torch.equal(network._positions((2, 4, 4)), network._positions((4, 4, 4))[:, :2])


def test_a_patch_sees_its_place_in_all_frames_and_its_frame() -> None:
    """After one block: what is at another place of another frame is not seen, except through the class token's start."""
    block = DividedBlock(Variant(12, 1, 2)).eval()
    class_token = torch.zeros(1, 1, 12)
    tokens = torch.randn(1, 3, 4, 12).requires_grad_()
    block(class_token, tokens)[1][0, 0, 0].sum().backward()
    assert tokens.grad is not None
    seen = tokens.grad[0].abs().sum(-1) > 0
    assert seen[:, 0].all(), "its place in all frames"
    assert seen[0].all(), "its frame"


def test_clips_of_other_sizes_are_taken() -> None:
    with torch.device("meta"):
        network = create_backbone("timesformer", variant="tiny")
        assert network(torch.rand(1, 3, 1, 16, 40)).shape == (1, 192, 1, 1, 2)
        assert network(torch.rand(1, 3, 12, 256, 224)).shape == (1, 192, 12, 16, 14)


def test_it_keeps_the_contract() -> None:
    check_backbone("timesformer", **SMALL)
