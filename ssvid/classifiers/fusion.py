"""Heads that bring the frames of a clip together late, after a network that saw each of them by itself.

The frames' vectors are means of the map over space. B clips, T frames, D width, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssvid.classifiers.linear import last_layer
from ssvid.errors import RecipeError


class AverageHead(nn.Module):
    """The single-frame baseline: each frame is classified by itself, and the probabilities are averaged over the frames.

    Karpathy et al. 2014, section 3.1, *single-frame*. Nothing here compares two frames, so that the order of the frames
    changes no bit of the answer.

    Differs: training too scores the mean of the probabilities, not each frame.
    """

    def __init__(self, width: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = last_layer(width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK, whose softmax is the mean of the frames' softmax."""
        return log_mean_probability(self.classifier(self.dropout(frame_vectors(map_BCTHW))))


class LateConcatHead(nn.Module):
    """Late fusion: the vectors of all frames one after another, then a perceptron with one hidden layer.

    Karpathy et al. 2014, section 3.1, whose first fully connected layer sees both ends of a clip; here it sees every frame.

    Differs: the vectors are means over space, not whole maps, so that the number of weights does not depend on the size of
    the frames. A network with the fully connected stages of its paper (``caffenet`` with ``fc=true``) gives the paper's.

    Args:
        num_frames: of each clip; there are weights for each, so that no other number can be taken. hidden_width: of the layer
            between, after a ReLU.
    """

    def __init__(
        self, width: int, num_classes: int, *, num_frames: int, hidden_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.hidden = nn.Sequential(nn.Linear(num_frames * width, hidden_width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = last_layer(hidden_width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK.

        Raises:
            RecipeError: the map is of another number of frames than the weights.
        """
        if map_BCTHW.shape[2] != self.num_frames:
            raise RecipeError(
                f"the late_concat head has weights for {self.num_frames} frames, and this map has {map_BCTHW.shape[2]}: it "
                f"takes clips of the length that it was trained with. Give it {self.num_frames} frames, or train a head "
                "that takes any number (finetune.head=late_pool, lstm or attention)."
            )
        return self.classifier(self.dropout(self.hidden(frame_vectors(map_BCTHW).flatten(1))))


class LatePoolHead(nn.Module):
    """Late fusion with pooling: the mean of the frames' vectors, then a perceptron with one hidden layer.

    Yue-Hei Ng et al. 2015 (arXiv 1503.08909, section 3.1) pool over frames so before their fully connected layers. The
    frames are a set: their order changes no bit of the answer.

    Differs: the mean in place of the paper's maximum.

    Args:
        hidden_width: of the layer between, after a ReLU.
    """

    def __init__(self, width: int, num_classes: int, *, hidden_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden_width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = last_layer(hidden_width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK."""
        return self.classifier(self.dropout(self.hidden(mean_of_set(frame_vectors(map_BCTHW)))))


def frame_vectors(map_BCTHW: Tensor) -> Tensor:
    """The mean over space of each frame's map, BTD."""
    return map_BCTHW.transpose(1, 2).flatten(3).contiguous().mean(dim=3)


def mean_of_set(values_BTD: Tensor) -> Tensor:
    """The mean over T, BD, to the last bit the same for every order of the T: they are added in the order of their size."""
    return values_BTD.sort(dim=1).values.mean(dim=1)


def log_mean_probability(logits_BTK: Tensor) -> Tensor:
    """The logarithm of the mean over T of the softmax over K, BK, float32 or finer; the order of the T changes no bit."""
    fine = torch.promote_types(logits_BTK.dtype, torch.float32)
    log_probabilities_BTK = logits_BTK.to(fine).log_softmax(dim=2).sort(dim=1).values
    return log_probabilities_BTK.logsumexp(dim=1) - math.log(logits_BTK.shape[1])
