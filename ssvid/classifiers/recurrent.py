"""A head that reads the frames of a clip one after another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssvid.classifiers.fusion import frame_vectors, log_mean_probability
from ssvid.classifiers.linear import last_layer

LRCN_WIDTH = 256  # units of the LSTM in LRCN


class RecurrentHead(nn.Module):
    """An LSTM over the vectors of the frames; each step is classified, and the probabilities are averaged over the steps.

    LRCN (Donahue et al. 2015, arXiv 1411.4389, section 4).

    Differs: a frame's vector is the mean of its map over space, not fc6 (which ``caffenet`` with ``fc=true`` gives);
    training too scores the mean of the probabilities, not each step.

    Args:
        hidden_width: units of the LSTM. num_layers: LSTMs, each over the states of the one before.
    """

    def __init__(
        self, width: int, num_classes: int, *, hidden_width: int = LRCN_WIDTH, num_layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden_width, num_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = last_layer(hidden_width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK, whose softmax is the mean of the steps' softmax."""
        vectors_BTD = frame_vectors(map_BCTHW).to(self.classifier.weight.dtype)
        with torch.autocast(vectors_BTD.device.type, enabled=False):  # in full precision: the state is carried T times
            states_BTD, _ = self.lstm(vectors_BTD)
        return log_mean_probability(self.classifier(self.dropout(states_BTD)))
