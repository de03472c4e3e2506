"""Affinities against a plain float64 loop, for all knobs; what must hold for any protocol."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import SsvidError
from ssvid.evals.label_propagation import affinity as module
from ssvid.evals.label_propagation.affinity import Affinity, affinity, best_scores
from ssvid.features.propagation_protocol import PropagationProtocol
from tests.evals.label_propagation.published import DISTINCT, PROTOCOLS
from tests.evals.label_propagation.reference import weights_of

GROUPS = list(itertools.product(("context", "frame"), ("kept", "all")))
RADII = [
    (0.0, "circle", True),
    *itertools.product((1.0, 2.0, 2.5), ("circle", "square"), (True, False)),
    (50.0, "circle", True),
]


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(found: Affinity, num_frames: int, height: int, width: int) -> np.ndarray:
    """All weights, those of cells that are not kept are 0: (H, W, S, H, W)."""
    weights = torch.zeros(height * width, num_frames * height * width, dtype=torch.float64)
    weights.scatter_add_(1, found.cells_Nk, found.weights_Nk.double())
    return weights.reshape(height, width, num_frames, height, width).numpy()


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small grid has tiles at all borders, and in the middle."""
    monkeypatch.setattr(module, "_TILE_CPU", (2, 3))
    monkeypatch.setattr(module, "_TILE_EVERYWHERE", (2, 3))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("over", "softmax"), GROUPS)
@pytest.mark.parametrize(("radius", "shape", "includes"), RADII)
def test_all_knobs_are_as_the_plain_loop(over: str, softmax: str, radius: float, shape: str, includes: bool) -> None:
    query_DHW, context_SDHW = random_maps(5, 5, 7), random_maps(3, 5, 5, 7, seed=1)
    for top_k, on_first, normalization in ((1, True, "l2"), (4, False, "l2"), (4, True, "none"), (0, False, "l2")):
        protocol = PropagationProtocol(
            top_k=top_k, top_k_over=over, softmax_over=softmax, radius_cells=radius, radius_shape=shape,
            radius_includes=includes, radius_on_first=on_first, normalization=normalization, temperature=0.4,
        )  # fmt: skip
        found = dense(affinity(query_DHW, list(context_SDHW), protocol), 3, 5, 7)
        expected = weights_of(query_DHW.numpy(), list(context_SDHW.numpy()), protocol)
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=str(protocol))


@pytest.mark.usefixtures("small_tiles")
def test_a_position_that_is_said_to_be_the_first_frame_is_free_of_the_radius() -> None:
    query_DHW, context_SDHW = random_maps(5, 5, 7), random_maps(3, 5, 5, 7, seed=1)
    protocol = PropagationProtocol(radius_cells=1.0, top_k=3)
    found = dense(affinity(query_DHW, list(context_SDHW), protocol, first=(2,)), 3, 5, 7)
    expected = weights_of(query_DHW.numpy(), list(context_SDHW.numpy()), protocol, first=(2,))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", DISTINCT)
def test_the_memory_bound_changes_no_bit(name: str) -> None:
    protocol = PROTOCOLS[name]
    query_DHW, context_SDHW = random_maps(16, 20, 37), list(random_maps(21, 16, 20, 37, seed=1))
    whole = affinity(query_DHW, context_SDHW, replace(protocol, max_mb=4000))
    chunked = affinity(query_DHW, context_SDHW, replace(protocol, max_mb=1))  # two to nine frames at a time
    assert torch.equal(whole.weights_Nk, chunked.weights_Nk)
    assert torch.equal(whole.cells_Nk, chunked.cells_Nk)


@pytest.mark.parametrize("name", DISTINCT)
def test_a_temperature_near_zero_is_the_nearest_neighbor(name: str) -> None:
    protocol = replace(PROTOCOLS[name], temperature=1e-6)
    query_DHW, context_SDHW = random_maps(16, 10, 19), random_maps(3, 16, 10, 19, seed=1)
    found = dense(affinity(query_DHW, list(context_SDHW), protocol), 3, 10, 19).reshape(190, 3, 190)
    scores = _cosines(query_DHW, context_SDHW)
    scores[~_reached(protocol, 3, 10, 19)] = -np.inf
    if protocol.top_k_over == "frame":
        expected = np.eye(190)[scores.argmax(axis=2)] / 3
    else:
        expected = np.eye(3 * 190)[scores.reshape(190, -1).argmax(axis=1)].reshape(190, 3, 190)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_softmax_of_the_best_is_exp_then_the_best_then_renormalized() -> None:
    protocol = PROTOCOLS["davis2017-dino"]
    query_DHW, context_SDHW = random_maps(16, 10, 19), random_maps(3, 16, 10, 19, seed=1)
    raised = np.exp(_cosines(query_DHW, context_SDHW) / protocol.temperature) * _reached(protocol, 3, 10, 19)
    raised = raised.reshape(190, -1)
    raised[raised < np.sort(raised, axis=1)[:, -protocol.top_k, None]] = 0
    expected = raised / raised.sum(axis=1, keepdims=True)
    found = dense(affinity(query_DHW, list(context_SDHW), protocol), 3, 10, 19)
    np.testing.assert_allclose(found.reshape(190, -1), expected, atol=1e-6)


def test_softmax_over_all_loses_the_weight_of_what_is_not_kept() -> None:
    query_DHW, context_SDHW = random_maps(16, 10, 19), list(random_maps(3, 16, 10, 19, seed=1))
    sums = affinity(query_DHW, context_SDHW, PROTOCOLS["davis2017-timecycle"]).weights_Nk.sum(dim=1)
    assert sums.max() < 1
    kept = affinity(query_DHW, context_SDHW, PROTOCOLS["davis2017-crw"]).weights_Nk.sum(dim=1)
    torch.testing.assert_close(kept, torch.ones(190))


def test_weights_do_not_change_where_all_features_are_scaled() -> None:
    query_DHW, context_SDHW = random_maps(16, 10, 19), list(random_maps(2, 16, 10, 19, seed=1))
    own = affinity(query_DHW, context_SDHW, PropagationProtocol())
    scaled = affinity(query_DHW * 8, [c * 0.25 for c in context_SDHW], PropagationProtocol())
    torch.testing.assert_close(own, scaled)


def test_half_precision_is_near() -> None:
    """Weights differ by less than 0.02, where the same cells are kept; and 95 of 100 are."""
    query_DHW, context_SDHW = random_maps(64, 20, 37), list(random_maps(5, 64, 20, 37, seed=1))
    exact = affinity(query_DHW, context_SDHW, PropagationProtocol())
    half = affinity(query_DHW, context_SDHW, PropagationProtocol(precision="float16"))
    is_same_N = (exact.cells_Nk.sort(dim=1).values == half.cells_Nk.sort(dim=1).values).all(dim=1)
    assert is_same_N.float().mean() > 0.95
    off = (dense(exact, 5, 20, 37) - dense(half, 5, 20, 37)).reshape(740, -1)[is_same_N.numpy()]
    assert 0 < np.abs(off).max() < 0.02


@pytest.mark.parametrize("shape", [(1, 4, 6420), (1, 3, 50), (20, 5, 300), (3, 4, 7)])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_the_best_scores_are_those_of_a_full_sort(shape: tuple[int, int, int], k: int) -> None:
    scores_SnC = random_maps(*shape)
    outside_nC = random_maps(*shape[1:], seed=3) > 0.8
    outside_nC[:, 0] = False
    best_nk, at_nk = best_scores(scores_SnC, outside_nC, k)
    flat_nM = scores_SnC.masked_fill(outside_nC, -torch.inf).transpose(0, 1).flatten(1)
    torch.testing.assert_close(best_nk, flat_nM.sort(dim=1, descending=True).values[:, :k], rtol=0, atol=0)
    finite_nk = best_nk.isfinite()
    assert torch.equal(flat_nM.gather(1, at_nk)[finite_nk], best_nk[finite_nk])
    assert all(len(set(row.tolist())) == k for row in at_nk)


def test_features_that_are_not_finite_are_refused() -> None:
    broken_DHW = random_maps(4, 3, 3)
    broken_DHW[1, 2, 0] = torch.nan
    with pytest.raises(SsvidError, match=r"not finite.*earlier checkpoint"):
        affinity(broken_DHW, [random_maps(4, 3, 3)], PropagationProtocol())


def _cosines(query_DHW: Tensor, context_SDHW: Sequence[Tensor] | Tensor) -> np.ndarray:
    """(queries, frames, cells) in float64."""
    query_DN = F.normalize(query_DHW.double().flatten(1), dim=0)
    frames = [F.normalize(frame_DHW.double().flatten(1), dim=0) for frame_DHW in context_SDHW]
    return torch.stack([query_DN.T @ frame_DN for frame_DN in frames], dim=1).numpy()


def _reached(protocol: PropagationProtocol, num_frames: int, height: int, width: int) -> np.ndarray:
    """(queries, frames, cells): which are candidates."""
    y, x = (a.ravel() for a in np.mgrid[:height, :width])
    dy, dx = np.abs(y[:, None] - y), np.abs(x[:, None] - x)
    distance = np.hypot(dy, dx) if protocol.radius_shape == "circle" else np.maximum(dy, dx)
    near = distance <= protocol.radius_cells if protocol.radius_includes else distance < protocol.radius_cells
    reached = np.repeat(near[:, None], num_frames, axis=1)
    if not protocol.radius_cells:
        reached[:] = True
    if not protocol.radius_on_first:
        reached[:, 0] = True
    return reached


@pytest.mark.gpu
@pytest.mark.parametrize("name", DISTINCT)
def test_a_graphics_card_gives_what_the_processor_gives(name: str) -> None:
    query_DHW, context_SDHW = random_maps(64, 20, 37), random_maps(5, 64, 20, 37, seed=1)
    own = dense(affinity(query_DHW, list(context_SDHW), PROTOCOLS[name]), 5, 20, 37)
    other = affinity(query_DHW.cuda(), list(context_SDHW.cuda()), PROTOCOLS[name])
    assert other.weights_Nk.is_cuda
    on_card = dense(Affinity(other.weights_Nk.cpu(), other.cells_Nk.cpu()), 5, 20, 37)
    assert (
        np.abs(own - on_card).reshape(740, -1).max(axis=1) < 1e-4
    ).mean() > 0.99  # the last kept cell may be another
