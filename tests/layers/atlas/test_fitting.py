"""The fit: the same bits again, resumed too; the schedule; what has no weight does nothing; several objects."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch

from ssvid.errors import DataError, RecipeError
from ssvid.layers.atlas import PUBLISHED, AtlasConfig, AtlasModel, LossWeights, fit_atlas
from ssvid.layers.atlas.fitting import rate_times, weights_at
from tests.layers.atlas.conftest import TINY, H, T, W


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_bits(a, b):
    pairs = zip(a.network.state_dict().items(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(own, other) for (_, own), other in pairs)


@pytest.mark.usefixtures("one_thread")
def test_a_fit_that_was_stopped_goes_on_bit_for_bit(clip_motion):
    kept, told = io.BytesIO(), []

    def watch(model, losses):
        told.append(losses)
        if model.step == 3:
            torch.save(model.state(), kept)

    whole = fit_atlas(*clip_motion, TINY, seed=4, on_step=watch)
    kept.seek(0)
    resumed = fit_atlas(*clip_motion, TINY, seed=4, state=torch.load(kept, weights_only=True))
    assert resumed.step == whole.step == TINY.iterations == len(told)
    assert same_bits(whole, resumed)
    assert not same_bits(whole, fit_atlas(*clip_motion, TINY, seed=5))
    assert all(math.isfinite(value) for losses in told for value in losses.values())
    assert "global_rigidity" in told[0] and "global_rigidity" not in told[-1]


def test_a_state_of_other_settings_or_another_clip_is_refused(clip_motion, two_bodies, begun):
    with pytest.raises(DataError, match=r"other settings \(iterations\)"):
        fit_atlas(*clip_motion, dataclasses.replace(TINY, iterations=7), state=begun.state())
    with pytest.raises(DataError, match="another clip"):
        fit_atlas(*two_bodies, TINY, state=begun.state())
    with pytest.raises(DataError, match="format 0"):
        AtlasModel.from_state({"format": 0})
    with pytest.raises(RecipeError, match="iterations"):
        fit_atlas(*clip_motion, AtlasConfig(iterations=0))


def test_the_rate_rises_stays_and_falls():
    config = AtlasConfig(iterations=100, warmup_iterations=10, constant_share=0.3, final_lr_times=0.1)
    rates = [rate_times(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:31] == [1.0] * 21
    assert rates[65] == pytest.approx(0.55)
    assert np.all(np.diff(rates[30:]) < 0)
    assert rate_times(100, config) == pytest.approx(0.1)


def test_losses_count_in_their_time():
    early, late = (weights_at(AtlasConfig(), share) for share in (0.1, 0.5))
    assert (early["global_rigidity"], late["global_rigidity"]) == (0.005, 0.0)
    assert (early["bootstrap"], late["bootstrap"]) == (0.2, 0.02)
    assert weights_at(PUBLISHED, 0.5)["bootstrap"] == 0


def test_what_has_no_weight_is_left_out(clip_motion):
    told = []
    off = LossWeights(gradient=0, flow=0, alpha_flow=0, rigidity=0, global_rigidity=0, sparsity=0, bootstrap=0, mask=0)
    fit_atlas(
        *clip_motion,
        dataclasses.replace(TINY, weights=off, iterations=1),
        on_step=lambda _, losses: told.append(losses),
    )
    assert [*told[0]] == ["rgb"]


@pytest.mark.parametrize(
    "config", [TINY, dataclasses.replace(PUBLISHED, iterations=2, num_patches=4)], ids=["fast", "published"]
)
def test_two_objects_become_three_layers(two_bodies, config):
    model = fit_atlas(*two_bodies, config)
    assert model.names == ("left", "right", "background")
    assert model.alphas(H, W, [0, 1]).shape == (2, 2, H, W)
    weights = model.weights(H, W, range(T))
    assert weights.sum(axis=0) == pytest.approx(1, abs=1e-5)
    layers = np.stack([model.colors(name, H, W, range(T)) for name in model.names])
    composed = (weights[..., None] * layers).sum(axis=0)
    assert model.recompose(H, W, range(T)) == pytest.approx(255 * composed, abs=0.51)


@pytest.mark.slow
def test_a_known_scene_is_taken_apart(scene, known, clip_motion):
    """Seconds of training; the figures of a longer fit are in the benchmark."""
    config = AtlasConfig(iterations=150, warmup_iterations=10, num_patches=32)
    told = []
    model = fit_atlas(*clip_motion, config, on_step=lambda _, losses: told.append(losses["rgb"]))
    assert np.mean(told[-20:]) < 0.2 * np.mean(told[:20])
    assert ((model.alphas(H, W, range(T))[0] > 0.5) == known.masks()[0]).mean() > 0.97
