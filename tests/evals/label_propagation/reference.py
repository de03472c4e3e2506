"""Label propagation once more, slow and plain: float64, one query and one candidate after another, nothing shared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ssvid.features.propagation_protocol import PropagationProtocol


def unit(features_DHW: np.ndarray, protocol: PropagationProtocol) -> np.ndarray:
    """Features as they are compared."""
    features_DHW = features_DHW.astype(np.float64)
    if protocol.normalization == "none":
        return features_DHW
    return features_DHW / np.linalg.norm(features_DHW, axis=0, keepdims=True)


def reaches(query: tuple[int, int], cell: tuple[int, int], protocol: PropagationProtocol, *, is_first: bool) -> bool:
    """Whether a cell is a candidate for a query."""
    if protocol.radius_cells == 0 or (is_first and not protocol.radius_on_first):
        return True
    dy, dx = abs(query[0] - cell[0]), abs(query[1] - cell[1])
    distance = math.hypot(dy, dx) if protocol.radius_shape == "circle" else max(dy, dx)
    return distance <= protocol.radius_cells if protocol.radius_includes else distance < protocol.radius_cells


def weights_of(
    query_DHW: np.ndarray, context: Sequence[np.ndarray], protocol: PropagationProtocol, first: Sequence[int] = (0,)
) -> np.ndarray:
    """How much of each cell of the context each query takes, (H, W, S, H, W)."""
    _, height, width = query_DHW.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    query_DHW, context = unit(query_DHW, protocol), [unit(c, protocol) for c in context]
    weights = np.zeros((height, width, len(context), height, width))
    for y, x in cells:
        scores = [
            {
                (s, *cell): float(query_DHW[:, y, x] @ frame_DHW[:, cell[0], cell[1]]) / protocol.temperature
                for cell in cells
                if reaches((y, x), cell, protocol, is_first=s in first)
            }
            for s, frame_DHW in enumerate(context)
        ]
        groups = (
            scores if protocol.top_k_over == "frame" else [{k: v for of_frame in scores for k, v in of_frame.items()}]
        )
        for group in groups:
            for place, weight in _kept(group, protocol).items():
                weights[y, x][place] += weight / len(groups)
    return weights


def _kept(
    scores: Mapping[tuple[int, int, int], float], protocol: PropagationProtocol
) -> dict[tuple[int, int, int], float]:
    best = sorted(scores, key=lambda place: -scores[place])[: protocol.top_k or len(scores)]
    pool = best if protocol.softmax_over == "kept" else list(scores)
    highest = max(scores.values())
    total = sum(math.exp(scores[place] - highest) for place in pool)
    return {place: math.exp(scores[place] - highest) / total for place in best}


def propagated(maps: Sequence[np.ndarray], first_KHW: np.ndarray, protocol: PropagationProtocol) -> list[np.ndarray]:
    """Soft labels of all frames, KHW each, where only the first frame's are given."""
    found, carried = [first_KHW.astype(np.float64)], [first_KHW.astype(np.float64)]
    for t in range(1, len(maps)):
        before = range(t - protocol.num_previous, t)
        earliest = 1 if protocol.first_frame else 0
        chosen = [max(0, s) for s in before if protocol.primed or s >= earliest]
        chosen = [0] * protocol.first_frame + chosen
        is_first = range(int(protocol.first_frame))
        weights = weights_of(maps[t], [maps[s] for s in chosen], protocol, is_first)
        labels_KHW = np.einsum("yxsij,skij->kyx", weights, np.stack([carried[s] for s in chosen]))
        if protocol.feedback == "min_max":
            low, high = labels_KHW.min(axis=(1, 2), keepdims=True), labels_KHW.max(axis=(1, 2), keepdims=True)
            labels_KHW = (labels_KHW - low) / (high - low)
        found.append(labels_KHW)
        is_hard = protocol.feedback == "hard"
        carried.append(np.eye(len(labels_KHW))[labels_KHW.argmax(axis=0)].transpose(2, 0, 1) if is_hard else labels_KHW)
    return found
