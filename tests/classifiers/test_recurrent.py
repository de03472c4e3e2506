"""The LSTM head: by hand, against torch's own cell, and that it reads in order."""

import math

import pytest
import torch

from ssvid.classifiers.recurrent import RecurrentHead


def test_one_unit_by_hand():
    """All gates half open, candidate 1: the cell is 1/2, then 3/4; the output is half of its tanh."""
    head = RecurrentHead(1, 2, hidden_width=1).double()
    for q in head.parameters():
        q.data.zero_()
    head.lstm.bias_ih_l0.data[2] = 50.0  # of the candidate: tanh is 1
    head.classifier.weight.data.copy_(torch.tensor([[2.0], [-2.0]]))
    first, second = (math.tanh(cell) / 2 for cell in (1 / 2, 3 / 4))
    expected = (1 / (1 + math.exp(-4 * first)) + 1 / (1 + math.exp(-4 * second))) / 2
    probability = head(torch.zeros(1, 1, 2, 1, 1, dtype=torch.float64)).softmax(1)[0, 0].item()
    assert probability == pytest.approx(expected, rel=1e-12)


def test_it_is_torchs_cell_from_frame_to_frame():
    torch.manual_seed(0)
    head = RecurrentHead(5, 3, hidden_width=4, num_layers=2).double()
    cells = [torch.nn.LSTMCell(size, 4).double() for size in (5, 4)]
    for layer, cell in enumerate(cells):
        cell.load_state_dict({key: getattr(head.lstm, f"{key}_l{layer}") for key in cell.state_dict()})
    map_BCTHW = torch.randn(2, 5, 6, 3, 2, dtype=torch.float64)
    states, steps = [None, None], []
    for t in range(6):
        x_BD = map_BCTHW[:, :, t].mean(dim=(2, 3))
        for layer, cell in enumerate(cells):
            states[layer] = cell(x_BD, states[layer])
            x_BD = states[layer][0]
        steps.append(head.classifier(x_BD).softmax(1))
    torch.testing.assert_close(head(map_BCTHW).exp(), torch.stack(steps).mean(0), rtol=1e-12, atol=1e-12)


def test_it_reads_in_order_and_as_far_as_there_are_frames():
    torch.manual_seed(0)
    head = RecurrentHead(5, 3)
    head.classifier.weight.data.normal_()
    map_BCTHW = torch.randn(2, 5, 6, 1, 1)
    assert head.lstm.hidden_size == 256
    assert (head(map_BCTHW.flip(2)) - head(map_BCTHW)).abs().max() > 1e-3
    assert head(map_BCTHW[:, :, :2]).shape == (2, 3)
