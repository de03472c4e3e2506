"""Labels of the first frame carried through a video, frame by frame, by the likeness of features.

Only the context is held: the first frame and some frames before the one that is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import SsvidError
from ssvid.evals.label_propagation.affinity import Candidates, FrameCells, matches
from ssvid.evals.label_propagation.labels import insert_given, min_max, one_hot
from ssvid.features.propagation_protocol import PropagationProtocol, check_protocol


class Given(NamedTuple):
    """Labels that are known of a frame.

    labels_KHW: float from 0 to 1 on the grid, background first. is_given_K: which classes are given here; the others are
    carried on from before. The background is what is left where it is not given itself.
    """

    labels_KHW: Tensor
    is_given_K: Tensor


def propagate(maps: Iterable[Tensor], given: Mapping[int, Given], protocol: PropagationProtocol) -> Iterator[Tensor]:
    """The labels of each frame, from those that are given of some.

    The label of a cell is the weighted sum of the labels of the cells that ``affinity`` finds for it (Wang et al., CVPR
    2019, section 4.1; Jabri et al., NeurIPS 2020, section 3.4). What is found is part of the context of later frames.
    Frames before the first given one are background.

    Differs: a class may be given later than others (an object that comes into view). It is part of the context from then
    on like the rest; where it is, the other classes and the background are cut.

    Args:
        maps: features DHW of the frames in turn, float, as the network gives them; they are read one by one.
        given: frame -> what is known of it. All have the same classes.

    Yields:
        soft labels KHW, float32, for each frame. They sum to 1 over K, but for ``softmax_over="all"`` and for
            ``feedback="min_max"``, which they went through.

    Raises:
        RecipeError: the protocol is not legal.
        SsvidError: nothing is given, a given frame is not there, labels lie on another grid than the features, maps
            differ in shape, or features are not finite.
    """
    check_protocol(protocol)
    if not given:
        raise SsvidError(
            "no frame has labels, and there is nothing to carry through the video. Give those of one frame."
        )
    num_frames = 0
    carried: _Carried | None = None
    start = min(given)
    for t, features_DHW in enumerate(maps):
        num_frames += 1
        _check_grid(t, features_DHW, given[start if t < start else t] if t <= start or t in given else None)
        if t < start:
            yield _background(given[start], features_DHW)
        elif carried is None:
            carried = _Carried(features_DHW, given[t], protocol)
            yield carried.first_KHW
        else:
            yield carried.step(features_DHW, given.get(t))
    if max(given) >= num_frames:
        raise SsvidError(
            f"labels are given for frame {max(given)}, and the video has {num_frames} frames, numbered from 0. "
            "Give labels of frames that are there."
        )


class _Held(NamedTuple):
    """A frame of the context with its labels, (H * W, K)."""

    cells: FrameCells
    labels_NK: Tensor


class _Carried:
    """What is known of a video so far: the first frame, the frames before, and how to go on."""

    def __init__(self, features_DHW: Tensor, given: Given, protocol: PropagationProtocol) -> None:
        self.protocol = protocol
        self.shape = features_DHW.shape
        self.first_KHW = insert_given(_background(given, features_DHW), *given)
        self.first = _Held(FrameCells(features_DHW, protocol), _flat(self.first_KHW))
        num_copies = protocol.num_previous if protocol.primed else int(not protocol.first_frame)
        self.previous = deque([self.first] * num_copies, maxlen=protocol.num_previous)

    @torch.no_grad()
    def step(self, features_DHW: Tensor, given: Given | None) -> Tensor:
        """The labels of the next frame, KHW; it becomes part of the context."""
        if features_DHW.shape != self.shape:
            raise SsvidError(
                f"a frame has features of shape {tuple(features_DHW.shape)} and the first frame of shape "
                f"{tuple(self.shape)} (D, H, W). All frames of a video must have one size."
            )
        query = FrameCells(features_DHW, self.protocol)
        firsts = [self.first] if self.protocol.first_frame else []
        context = [*firsts, *self.previous]
        candidates = [Candidates(held.cells, n < len(firsts)) for n, held in enumerate(context)]
        labels_MK = torch.cat([held.labels_NK for held in context])
        labels_NK = labels_MK.new_empty(features_DHW.shape[1] * features_DHW.shape[2], labels_MK.shape[1])
        for part in matches(query, candidates, self.protocol):
            labels_NK[part.queries_n] = F.embedding_bag(
                part.cells_nk, labels_MK, mode="sum", per_sample_weights=part.weights_nk
            )
        labels_KHW = labels_NK.T.unflatten(1, features_DHW.shape[1:])
        if given is not None:
            labels_KHW = insert_given(labels_KHW, *given)
        if self.protocol.feedback == "min_max":
            labels_KHW = min_max(labels_KHW)
        carried_KHW = one_hot(labels_KHW) if self.protocol.feedback == "hard" else labels_KHW
        self.previous.append(_Held(query, _flat(carried_KHW)))
        return labels_KHW


def _flat(labels_KHW: Tensor) -> Tensor:
    return labels_KHW.flatten(1).T.contiguous()


def _background(given: Given, features_DHW: Tensor) -> Tensor:
    labels_KHW = torch.zeros(given.labels_KHW.shape, device=features_DHW.device)
    labels_KHW[0] = 1
    return labels_KHW


def _check_grid(frame: int, features_DHW: Tensor, given: Given | None) -> None:
    if given is not None and given.labels_KHW.shape[1:] != features_DHW.shape[1:]:
        labels, cells = (" x ".join(map(str, x.shape[1:])) for x in (given.labels_KHW, features_DHW))
        raise SsvidError(
            f"the labels of frame {frame} lie on {labels} cells and its features on {cells}. "
            "Bring the labels to the grid of the features first."
        )
