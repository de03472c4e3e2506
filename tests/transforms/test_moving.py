"""Where something moves, against plain loops."""

import numpy as np
import pytest
import torch

from ssvid.transforms.moving import pick_window, window_motion


def test_motion_of_a_window_is_the_mean_difference_in_a_loop():
    frame, later = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8, generator=torch.manual_seed(0))
    got = window_motion(frame, later, 8, 4)
    for i in range(4):
        for j in range(4):
            top, left = 4 * i, 4 * j
            cut = (slice(None), slice(top, top + 8), slice(left, left + 8))
            want = np.abs(frame[cut].numpy().astype(int) - later[cut].numpy().astype(int)).mean()
            assert float(got[i, j]) == pytest.approx(want, rel=1e-5)


def test_one_of_the_windows_that_move_most_each_as_often():
    motion = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.2]])
    picked = [int(pick_window(motion, torch.tensor([u]), 3)) for u in (0.0, 0.32, 0.34, 0.65, 0.67, 0.999999, 1.0)]
    assert picked == [1, 1, 2, 2, 3, 3, 3]
    still = [int(pick_window(torch.zeros(1, 5), torch.tensor([u]), 2)) for u in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert still == [0, 1, 2, 3, 4], "where nothing moves every window ties"
    assert int(pick_window(motion, torch.tensor([0.99]), 99)) == 4
