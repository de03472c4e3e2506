"""The decoder of hidden tokens: what its start is, and that it learns early with one."""

import itertools

import pytest
import torch

from ssvid.backbones.attention import SelfAttention, Variant
from ssvid.backbones.tokens import take_tokens
from ssvid.token_decoder import TokenDecoder, heads_of, look_near


def test_attention_that_looks_near_hands_over_what_stands_where_it_looks():
    """One token alone comes out as it went in; of tokens of equal length each is taken from most by its own place."""
    attention = SelfAttention(24, 1)
    look_near(attention)
    torch.nn.init.zeros_(attention.qkv.bias)
    torch.nn.init.zeros_(attention.proj.bias)
    tokens = torch.nn.functional.normalize(torch.randn(2, 7, 24, generator=torch.manual_seed(0)), dim=2) * 24**0.5
    with torch.no_grad():
        assert torch.allclose(attention(tokens[:, :1]), tokens[:, :1], atol=1e-5)
        weights = torch.softmax(tokens @ tokens.transpose(1, 2) / 24**0.5, dim=2)
        assert torch.allclose(attention(tokens), weights @ tokens, atol=1e-5)
    assert (weights.argmax(dim=2) == torch.arange(7)).all()


def test_a_decoder_that_starts_near_takes_most_from_the_cells_around():
    """Tokens of cells that lie near are alike: the fewer steps from cell to cell, the more."""
    grid = (4, 6, 6)
    table = TokenDecoder(96, 96, grid, Variant(48, 1, 1), positions="near").positions_ND.double()
    assert table.mean(dim=0).abs().max() < 1e-6 and float(table.square().mean()) == pytest.approx(1.0)
    cells = torch.tensor(list(itertools.product(*(range(n) for n in grid))))
    steps = (cells[:, None] - cells[None]).abs().sum(dim=2)
    normed = torch.nn.functional.layer_norm(table, (48,))
    alike = normed @ normed.T / 48
    means = [float(alike[steps == far].mean()) for far in range(5)]
    assert means == sorted(means, reverse=True) and means[0] == pytest.approx(1.0, abs=1e-3)
    around = (steps == 1) & ((cells[:, None] - cells[None])[..., 1].abs() == 1)
    assert float(alike[around].mean()) > float(alike[steps > 2].mean()) + 0.3


@pytest.mark.parametrize(("near", "least", "most"), [(True, 0.5, 1.0), (False, -0.1, 0.1)])
def test_a_decoder_that_starts_near_learns_early_to_copy_what_stays(near, least, most):
    """What stands still is seen at another moment, but for one time in 8. Its mean square is 1."""
    torch.manual_seed(0)
    decoder, num_cells = (
        TokenDecoder(
            8, 8, (4, 4, 4), Variant(48, 1, 1), bias=False, positions="near" if near else "flat", asked_std=0.02
        ),
        64,
    )
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3, betas=(0.9, 0.95))
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(90):
        still = torch.randn(8, 1, 16, 8, generator=draw).expand(-1, 4, -1, -1).flatten(1, 2)
        hidden, seen = torch.stack([torch.randperm(num_cells, generator=draw) for _ in range(8)]).chunk(2, dim=1)
        error = (decoder(take_tokens(still, seen), seen, hidden) - take_tokens(still, hidden)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        found.append(1 - error.item())
    assert least < sum(found[-15:]) / 15 < most


def test_heads_divide_the_width():
    assert [heads_of(width, 64) for width in (48, 192, 320, 8)] == [1, 3, 5, 1]
    assert heads_of(40, 16) == 2
