"""Labels of the first frame carried through a video, frame by frame, by the likeness of features.

Only the context is held: the first frame and some frames before the one that is looked at.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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

    Differs: a class may be given later than others, or again. Where it is, the other classes and the background are cut. The
    frames of the context in which it was not given itself know nothing of it, and their background is no knowledge that it is
    not there: it is carried back to them, by the same rule, before it is carried on. What was yielded of them stays.

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
    """A frame of the context with its labels, (H * W, K), and which classes were given in it."""

    cells: FrameCells
    labels_NK: Tensor
    is_given_K: Tensor


class _Carried:
    """What is known of a video so far: the first frame, the frames before, and how to go on."""

    def __init__(self, features_DHW: Tensor, given: Given, protocol: PropagationProtocol) -> None:
        self.protocol = protocol
        self.shape = features_DHW.shape
        self.first_KHW = insert_given(_background(given, features_DHW), *given)
        self.first = _Held(FrameCells(features_DHW, protocol), _flat(self.first_KHW), given.is_given_K)
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
        labels_NK = _taken(query, candidates, torch.cat([held.labels_NK for held in context]), self.protocol)
        labels_KHW = labels_NK.T.unflatten(1, features_DHW.shape[1:])
        is_given_K = torch.zeros(len(labels_KHW), dtype=torch.bool)
        if given is not None:
            labels_KHW, is_given_K = insert_given(labels_KHW, *given), given.is_given_K
            self._carry_back(_Held(query, _flat(labels_KHW), is_given_K))
        if self.protocol.feedback == "min_max":
            labels_KHW = min_max(labels_KHW)
        carried_KHW = one_hot(labels_KHW) if self.protocol.feedback == "hard" else labels_KHW
        self.previous.append(_Held(query, _flat(carried_KHW), is_given_K))
        return labels_KHW

    def _carry_back(self, given: _Held) -> None:
        """Tell the frames of the context what is given now, of the classes that were not given in them."""
        told: dict[int, _Held] = {}  # a frame can be there several times
        for held in (self.first, *self.previous):
            if id(held) not in told:
                told[id(held)] = self._told(held, given)
        self.previous = deque((told[id(held)] for held in self.previous), maxlen=self.previous.maxlen)
        self.first = told[id(self.first)]

    @property
    def _of_one_frame(self) -> PropagationProtocol:
        """The protocol where one frame is all that is looked at: as many cells as fall to it of those of a whole context."""
        if self.protocol.top_k_over == "frame":
            return self.protocol
        num_frames = self.protocol.num_previous + self.protocol.first_frame
        return replace(self.protocol, top_k=math.ceil(self.protocol.top_k / num_frames))

    def _told(self, held: _Held, given: _Held) -> _Held:
        is_new_K = given.is_given_K & ~held.is_given_K
        is_new_K[0] = False  # the background is what is left
        if not is_new_K.any():
            return held
        source = Candidates(given.cells, held is self.first and self.protocol.first_frame)
        found_NK = _taken(held.cells, [source], given.labels_NK, self._of_one_frame)
        found_NK = found_NK / found_NK.sum(dim=1, keepdim=True).clamp(min=1e-38)  # shares, whatever was lost
        found_KN1 = found_NK.T[:, :, None]
        if self.protocol.feedback == "hard":
            found_KN1 = one_hot(found_KN1)
        labels_KN1 = insert_given(held.labels_NK.T[:, :, None], found_KN1, is_new_K)
        return held._replace(labels_NK=_flat(labels_KN1))


def _taken(
    query: FrameCells, context: Sequence[Candidates], labels_MK: Tensor, protocol: PropagationProtocol
) -> Tensor:
    """The labels (H * W, K) that the cells of a frame take from those of a context, which lie one frame after another."""
    labels_NK = labels_MK.new_empty(query.features_HWD[..., 0].numel(), labels_MK.shape[1])
    for part in matches(query, context, protocol):
        labels_NK[part.queries_n] = F.embedding_bag(
            part.cells_nk, labels_MK, mode="sum", per_sample_weights=part.weights_nk
        )
    return labels_NK


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
