"""Heads of attention against attention written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssvid.classifiers.attentive import AttentiveHead, TemporalAttentionHead, num_heads, positions_in_time


def test_an_attentive_head_by_hand_with_one_head():
    head = AttentiveHead(6, 3).eval()
    map_BCTHW = torch.randn(2, 6, 2, 2, 2)
    tokens = F.layer_norm(map_BCTHW.flatten(2).transpose(1, 2), (6,))
    w, b = head.attention.in_proj_weight, head.attention.in_proj_bias
    q = head.query[0] @ w[:6].T + b[:6]
    k, v = tokens @ w[6:12].T + b[6:12], tokens @ w[12:].T + b[12:]
    looked = torch.softmax(q @ k.transpose(1, 2) / 6**0.5, dim=-1) @ v
    x = head.query + head.attention.out_proj(looked)
    x = x + head.perceptron(F.layer_norm(x, (6,)))
    torch.testing.assert_close(head(map_BCTHW), head.classifier(x[:, 0]))


def test_an_attentive_head_sees_a_set_of_cells():
    head = AttentiveHead(8, 3).eval()
    map_BCTHW = torch.randn(1, 8, 2, 2, 2)
    order = torch.randperm(8)
    moved = map_BCTHW.flatten(2)[:, :, order].view_as(map_BCTHW)
    torch.testing.assert_close(head(moved), head(map_BCTHW))


@pytest.mark.parametrize(("width", "heads"), [(512, 8), (1024, 16), (480, 6), (16, 1), (130, 2)])
def test_attention_heads_divide_the_width(width, heads):
    assert num_heads(width) == heads


# ---- from frame to frame


def layer_norm(x, norm):
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * weight + bias


def linear(x, layer):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def attend(tokens_ND, block):
    """Softmax attention one query, one key and one head at a time."""
    heads, (num, width) = block.attn.num_heads, tokens_ND.shape
    size = width // heads
    queries, keys, values = np.split(linear(tokens_ND, block.attn.qkv), 3, axis=1)
    seen_ND = np.zeros((num, width))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for m in range(num):
            weights = [math.exp(queries[m, part] @ keys[n, part] / math.sqrt(size)) for n in range(num)]
            for n in range(num):
                seen_ND[m, part] += weights[n] / sum(weights) * values[n, part]
    return linear(seen_ND, block.attn.proj)


def by_loop(head, clip_DTHW):
    frames_TD = clip_DTHW.mean(axis=(2, 3)).T
    num, width = frames_TD.shape
    tokens = layer_norm(frames_TD, head.norm_frames)
    for t in range(num):
        for k in range(width // 2):
            angle = t / 10_000 ** (2 * k / width)
            tokens[t, 2 * k] += math.sin(angle)
            tokens[t, 2 * k + 1] += math.cos(angle)
    tokens = np.concatenate([head.class_token.detach().numpy()[0], tokens])
    for block in head.blocks:
        tokens = tokens + attend(layer_norm(tokens, block.norm1), block)
        inner = linear(layer_norm(tokens, block.norm2), block.mlp.fc1)
        erf = np.vectorize(math.erf)(inner / math.sqrt(2))
        tokens = tokens + linear(inner * (1 + erf) / 2, block.mlp.fc2)
    return linear(layer_norm(tokens, head.norm)[0], head.classifier)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_attention_over_frames_equals_a_loop_in_float64(num_layers):
    torch.manual_seed(0)
    head = TemporalAttentionHead(128, 3, num_layers=num_layers).double().eval()
    for q in head.parameters():
        q.data += 0.1 * torch.randn_like(q)  # as if trained: norms and biases are not ones and zeros
    assert head.blocks[0].attn.num_heads == 2
    map_BCTHW = torch.randn(2, 128, 5, 2, 3, dtype=torch.float64)
    expected = torch.tensor(np.stack([by_loop(head, clip.numpy()) for clip in map_BCTHW]))
    torch.testing.assert_close(head(map_BCTHW), expected, rtol=1e-6, atol=1e-6)


def test_attention_over_frames_knows_their_order_and_takes_any_number_of_them():
    torch.manual_seed(0)
    head = TemporalAttentionHead(8, 3).eval()
    for q in head.parameters():
        q.data += 0.3 * torch.randn_like(q)
    map_BCTHW = torch.randn(2, 8, 6, 1, 1)
    assert (head(map_BCTHW.flip(2)) - head(map_BCTHW)).abs().max() > 1e-3
    assert head(map_BCTHW[:, :, :2]).shape == (2, 3)


def test_positions_by_hand():
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(positions_in_time(2, 4), torch.tensor(expected, dtype=torch.float32))
    assert positions_in_time(7, 5).shape == (7, 5)
