"""Tightened layers: the same picture, and no smaller alpha could give it."""

import numpy as np

from ssvid.layers.omnimatte.tightening import tightened


def picture(layer, behind):
    return layer[..., 3:] * layer[..., :3] + (1 - layer[..., 3:]) * behind


def drawn():
    rng = np.random.default_rng(0)
    layer, behind = rng.random((6, 8, 4)), rng.uniform(0.2, 0.8, (6, 8, 3))
    sure = np.zeros((6, 8), bool)
    sure[:2] = True
    return layer, behind, sure


def test_the_picture_stays_and_alpha_falls():
    layer, behind, sure = drawn()
    found = tightened(layer, behind, sure)
    assert np.allclose(picture(found, behind), picture(layer, behind))
    assert (found[..., 3] <= layer[..., 3]).all()
    assert (found[2:, :, 3] < layer[2:, :, 3] - 0.01).mean() > 0.7
    assert (found[sure] == layer[sure]).all()
    assert found.min() >= 0 and found.max() <= 1


def test_no_smaller_alpha_gives_it():
    layer, behind, sure = drawn()
    found = tightened(layer, behind, sure)
    smaller = 0.99 * found[2:, :, 3:]
    needed = behind[2:] + (picture(layer, behind)[2:] - behind[2:]) / smaller
    assert ((needed < 0) | (needed > 1)).any(axis=-1).all()


def test_a_black_shadow_is_found_as_it_was():
    behind = np.random.default_rng(1).uniform(0.2, 0.8, (5, 5, 3))
    shaded = 0.6 * behind
    fitted = np.concatenate([(shaded - 0.1 * behind) / 0.9, np.full((5, 5, 1), 0.9)], axis=-1)
    found = tightened(fitted, behind, np.zeros((5, 5), bool))
    assert np.allclose(found[..., 3], 0.4)
    assert np.allclose(found[..., :3], 0, atol=1e-12)


def test_nothing_stays_nothing():
    layer, behind, sure = drawn()
    layer[..., 3] = 0
    assert (tightened(layer, behind, sure)[..., 3] == 0).all()
    layer[..., 3], layer[..., :3] = 1, behind
    assert (tightened(layer, behind, np.zeros_like(sure))[..., 3] == 0).all()
    assert np.isfinite(tightened(layer, np.zeros_like(behind), sure)).all()
