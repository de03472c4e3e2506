"""What the tasks share that tell the own video from others: a queue of keys, and the losses over it and over a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.ranks import rows_of_all

if TYPE_CHECKING:
    from torchmetrics import Metric

NOBODY = -1  # the video of an empty place in a queue


class KeyQueue(nn.Module):
    """Keys of earlier batches, each with the number of its video (He et al., CVPR 2020, section 3.1). Part of a task's state.

    Args:
        size: places N. width: of a key, D.
    """

    keys_ND: Tensor
    videos_N: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys_ND", torch.zeros(size, width))
        self.register_buffer("videos_N", torch.full((size,), NOBODY))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def similarity(self, queries_BD: Tensor) -> Tensor:
        """Products with all keys, (B, N). The keys are copied: they may change before the backward pass."""
        return queries_BD @ self.keys_ND.clone().T

    def of_others(self, videos_B: Tensor) -> Tensor:
        """Which places hold a key of another video, bool (B, N): the own video is never a negative."""
        return (self.videos_N != NOBODY) & (self.videos_N != videos_B.unsqueeze(1))

    @torch.no_grad()
    def enqueue(self, keys_BD: Tensor, videos_B: Tensor) -> None:
        """The keys of all devices take the places of the oldest ones."""
        size = len(self.keys_ND)
        keys_MD, videos_M = rows_of_all(keys_BD)[-size:], rows_of_all(videos_B)[-size:]
        places_M = (self.place + torch.arange(len(keys_MD), device=keys_MD.device)) % size
        self.keys_ND[places_M], self.videos_N[places_M] = keys_MD, videos_M
        self.place.copy_((self.place + len(keys_MD)) % size)


def info_nce(similarity_BK: Tensor, to_others_BN: Tensor, is_negative_BN: Tensor) -> Tensor:
    """-sum over a sample's K keys of log(exp s+ / (exp s+ + sum of exp s- over negatives)), mean over samples.

    (van den Oord et al. 2018, eq. 4; over several keys as in RSPNet, Chen et al., AAAI 2021, eq. 3.)

    Args:
        similarity_BK: to each key that belongs to the sample, over the temperature. to_others_BN: to each candidate.
        is_negative_BN: which of these count. Where none does, the loss is 0.
    """
    negative_BN = to_others_BN.masked_fill(~is_negative_BN, -torch.inf)
    total = sum(
        F.cross_entropy(
            torch.cat([positive_B.unsqueeze(1), negative_BN], dim=1), torch.zeros_like(positive_B, dtype=torch.long)
        )
        for positive_B in similarity_BK.unbind(dim=1)
    )
    return torch.as_tensor(total)


def nt_xent(one_BD: Tensor, two_BD: Tensor, videos_B: Tensor, temperature: float) -> Tensor:
    """-log(exp s+ / (exp s+ + sum of exp s-)) of each look at each sample, mean over both (SimCLR, Chen et al., ICML 2020, eq. 1).

    s is the cosine over the temperature, s+ that to the other look at the same sample, s- those to both looks at all samples
    of other videos, on all devices.

    Args:
        one_BD, two_BD: embeddings of two looks at each sample. videos_B: the number of each sample's video.

    Differs: other clips of the own video are no negatives.
    """
    one_BD, two_BD = F.normalize(one_BD.float(), dim=1), F.normalize(two_BD.float(), dim=1)
    all_ND = torch.cat([rows_of_all(one_BD), rows_of_all(two_BD)])
    is_other_BN = videos_B.unsqueeze(1) != rows_of_all(videos_B).repeat(2)
    positive_B1 = (one_BD * two_BD).sum(dim=1, keepdim=True) / temperature
    losses = [info_nce(positive_B1, look_BD @ all_ND.T / temperature, is_other_BN) for look_BD in (one_BD, two_BD)]
    return (losses[0] + losses[1]) / 2


# ---- measures over an epoch ------------------------------------------------------------------------------------------


def right_share(lead_B: Tensor) -> Tensor:
    """1 where the right one is ahead, 0 where the wrong one is, 1/2 where they are alike."""
    return (lead_B.sign() + 1) / 2


def nearer_than_others(anchor_ND: Tensor, keys_ND: Tensor, videos_N: Tensor) -> float:
    """How often the key of the own video is nearer to an anchor than that of another one, over all pairs; ties count half.

    Chance is 1/2, which is also the value where all are of one video.

    Args:
        keys_ND: of length 1; anchors are brought to it.
    """
    return ahead_of_others(F.normalize(anchor_ND, dim=1) @ keys_ND.T, videos_N)


def ahead_of_others(similarity_NN: Tensor, videos_N: Tensor) -> float:
    """The same of the similarities of each anchor (row) to each key (column)."""
    is_other_NN = videos_N.unsqueeze(1) != videos_N
    right_NN = right_share(similarity_NN.diagonal().unsqueeze(1) - similarity_NN)
    return float(right_NN[is_other_NN].mean()) if bool(is_other_NN.any()) else 0.5


def collecting(compute: Callable[..., float], names: Sequence[str]) -> Metric:
    """A metric that collects rows, of all devices, and computes a number of all of them. names: of what ``compute`` takes."""
    from torchmetrics import Metric  # here: importing it takes seconds

    class OfAll(Metric):
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.add_state(name, [], dist_reduce_fx="cat")

        def update(self, *rows: Tensor) -> None:
            for name, part in zip(names, rows, strict=True):
                getattr(self, name).append(part)

        def compute(self) -> Tensor:
            columns = [torch.cat(part) if isinstance(part := getattr(self, name), list) else part for name in names]
            return torch.tensor(compute(*columns))

    return OfAll()
