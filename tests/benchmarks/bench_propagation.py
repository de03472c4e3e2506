"""What carrying labels from frame to frame costs, features apart: our tiles against one dense affinity, on one thread.

Usage: python -m tests.benchmarks.bench_propagation [--repeats 3] [--quick] > table.md
       python -m tests.benchmarks.bench_propagation --one CASE METHOD     (one frame, as JSON)
       python -m tests.benchmarks.bench_propagation --footage FOLDER      (a folder of frames, features and all, as JSON)

Dense is a product with all cells of the context, the radius as a mask, top-k, softmax, and the labels of the kept cells by
index, 512 queries at a time: the fastest of 64, 100 and 512, and what the published programs do. Each figure is that of a
process of its own; methods take turns, and the best of the repeats counts. CPU seconds of one frame with a full context;
memory is the peak of the process beyond what it had before (context, labels and scores). Labels and kept cells of both are
compared.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.backbones import initialize_backbone
from ssvid.evals.label_propagation.affinity import Candidates, FrameCells, affinity, matches
from ssvid.evals.label_propagation.labels import masks_from_grid, masks_to_grid
from ssvid.evals.label_propagation.propagation import Given, propagate
from ssvid.features.maps import MapGrid, read_maps, with_stride
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.machine import environment
from ssvid.video import open_video

NUM_CLASSES = 4
QUERIES_AT_ONCE = 512


class Case(NamedTuple):
    """A grid, a context and a protocol."""

    height: int
    width: int
    channels: int
    num_frames: int
    protocol: PropagationProtocol


def _case(height: int, width: int, num_previous: int, channels: int = 256, **knobs: Any) -> Case:
    protocol = PropagationProtocol(num_previous=num_previous, **{"radius_includes": False, **knobs})
    return Case(height, width, channels, num_previous + 1, protocol)


CROPMAE = {"temperature": 0.7, "top_k": 7, "radius_cells": 20.0}
CASES = {
    "480p, 20 frames, radius 12 on all": _case(60, 107, 20, radius_on_first=True),
    "480p, 20 frames, radius 12, first frame dense": _case(60, 107, 20),
    "CropMAE: 30 x 55, 20 frames, radius 20, first frame dense": _case(30, 55, 20, 384, **CROPMAE),
    "DINO: 480p at stride 16, 7 frames, square 12 on all": _case(
        30, 52, 7, 384, radius_shape="square", radius_on_first=True, top_k=5, temperature=0.1, radius_includes=True
    ),
    "TimeCycle: 40 x 40, 7 frames, no radius, top 5 of each frame": _case(
        40, 40, 7, 512, radius_cells=0.0, top_k=5, top_k_over="frame", softmax_over="all", temperature=512**-0.5
    ),
}
GROWTH = {
    **{f"{h} x {w}, 20 frames": _case(h, w, 20) for h, w in ((30, 54), (60, 107), (90, 160), (135, 240))},
    **{f"60 x 107, {n} frames": _case(60, 107, n) for n in (5, 10, 40)},
}


def made_up(case: Case) -> tuple[Tensor, list[Tensor], Tensor]:
    """A query, its context, and soft labels of the context: frames that share a texture, and much noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.channels, case.height, case.width)
    base = torch.randn(shape, generator=generator)
    frames = [base + torch.randn(shape, generator=generator) for _ in range(case.num_frames + 1)]
    cells = case.num_frames * case.height * case.width
    return frames[0], frames[1:], torch.randn(cells, NUM_CLASSES, generator=generator).mul_(3).softmax(dim=1)


def by_tiles(context: Sequence[Tensor], labels_MK: Tensor, case: Case) -> Callable[[Tensor], Tensor]:
    """What ``propagate`` does with each frame."""
    candidates = [Candidates(FrameCells(frame, case.protocol), n == 0) for n, frame in enumerate(context)]

    def step(query_DHW: Tensor) -> Tensor:
        found_NK = torch.empty(case.height * case.width, NUM_CLASSES)
        for part in matches(FrameCells(query_DHW, case.protocol), candidates, case.protocol):
            weights_nk = part.weights_nk
            bag_nK = F.embedding_bag(part.cells_nk, labels_MK, mode="sum", per_sample_weights=weights_nk)
            found_NK[part.queries_n] = bag_nK
        return found_NK

    return step


def by_dense(context: Sequence[Tensor], labels_MK: Tensor, case: Case) -> Callable[[Tensor], Tensor]:
    """All cells against all cells."""
    keys_MD = torch.cat([F.normalize(frame.flatten(1).T, dim=1) for frame in context])

    def step(query_DHW: Tensor) -> Tensor:
        parts = []
        for start, weights_nk, cells_nk in dense_kept(query_DHW, keys_MD, case):
            parts.append((labels_MK[cells_nk] * weights_nk[..., None]).sum(dim=1))
            assert start == sum(map(len, parts[:-1]))
        return torch.cat(parts)

    return step


def dense_kept(query_DHW: Tensor, keys_MD: Tensor, case: Case) -> Any:
    """Weights and cells of each chunk of queries."""
    protocol, num_cells = case.protocol, case.height * case.width
    queries_ND = F.normalize(query_DHW.flatten(1).T, dim=1)
    y_N = torch.arange(case.height).repeat_interleave(case.width)
    x_N = torch.arange(case.width).repeat(case.height)
    for start in range(0, num_cells, QUERIES_AT_ONCE):
        own = slice(start, start + QUERIES_AT_ONCE)
        scores_nSC = (queries_ND[own] @ keys_MD.T).div_(protocol.temperature).unflatten(1, (-1, num_cells))
        if protocol.radius_cells:
            dy, dx = (y_N[own, None] - y_N).abs(), (x_N[own, None] - x_N).abs()
            is_circle = protocol.radius_shape == "circle"
            far = dy**2 + dx**2 if is_circle else torch.maximum(dy, dx)
            limit = protocol.radius_cells**2 if is_circle else protocol.radius_cells
            outside = far > limit if protocol.radius_includes else far >= limit
            first = 0 if protocol.radius_on_first else 1
            scores_nSC[:, first:].masked_fill_(outside[:, None], -math.inf)
        if protocol.top_k_over == "context":
            scores_nM = scores_nSC.flatten(1)
            best_nk, cells_nk = scores_nM.topk(protocol.top_k, dim=1)
            yield start, best_nk.softmax(dim=1), cells_nk
            continue
        best_nSk, cells_nSk = scores_nSC.topk(protocol.top_k, dim=2)
        weights_nSk = (best_nSk - scores_nSC.logsumexp(dim=2, keepdim=True)).exp() / len(scores_nSC[0])
        cells_nSk += torch.arange(scores_nSC.shape[1])[:, None] * num_cells
        yield start, weights_nSk.flatten(1), cells_nSk.flatten(1)


METHODS = {"tiles": by_tiles, "dense": by_dense}


def measure(case: Case, method: str) -> dict[str, float]:
    """CPU seconds of one frame, and the peak of memory in MB beyond what the process had before."""
    torch.set_num_threads(1)
    small = case._replace(height=8, width=16, num_frames=2)
    query, context, labels = made_up(small)
    METHODS[method](context, labels, small)(query)
    before = _peak_mb()
    query, context, labels = made_up(case)
    step = METHODS[method](context, labels, case)
    context.clear()
    started = time.process_time()
    step(query)
    return {"cpu_seconds": time.process_time() - started, "memory_mb": _peak_mb() - before}


def _peak_mb() -> float:
    """Of this process alone: ru_maxrss would start from what the parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def footage(folder: Path, num_frames: int) -> dict[str, float]:
    """CPU seconds of a frame with a full context, and the peak of the whole process: layer3 of a resnet18 at stride 8.

    The mask is the middle of the first frame.
    """
    torch.set_num_threads(1)
    protocol = PropagationProtocol(size_rule="native")
    network = with_stride(initialize_backbone("resnet18"), 8, "layer3").eval()
    pictures = [open_video(folder).frames_at(np.array([n]))[0] for n in range(num_frames)]
    size_px = tuple(pictures[0].shape[1:])
    maps = read_maps(network, pictures, stage="layer3", batch_frames=4)
    first_DHW = next(maps)
    grid = MapGrid.of(network, "layer3", first_DHW.shape, size_px)
    mask_HW = np.zeros(size_px, dtype=np.uint8)
    mask_HW[size_px[0] // 4 : -size_px[0] // 4, size_px[1] // 4 : -size_px[1] // 4] = 1
    given = Given(masks_to_grid(mask_HW, (1,), grid, protocol.label_resampling), torch.ones(2, dtype=torch.bool))
    seconds = [time.process_time()]
    for labels_KHW in propagate(chain([first_DHW], maps), {0: given}, protocol):
        masks_from_grid(labels_KHW, (1,), grid, size_px, protocol)
        seconds.append(time.process_time())
    full = np.diff(seconds)[protocol.num_previous + 1 :]
    return {"cells": grid.height * grid.width, "seconds_per_frame": float(full.mean()), "peak_mb": _peak_mb()}


def agreement(case: Case) -> str:
    """How alike the labels and the kept cells of both are."""
    query, context, labels_MK = made_up(case)
    ours = affinity(query, context, case.protocol)
    keys_MD = torch.cat([F.normalize(frame.flatten(1).T, dim=1) for frame in context])
    weights_Nk, cells_Nk = (torch.cat(parts) for parts in list(zip(*dense_kept(query, keys_MD, case), strict=True))[1:])
    own_NK, dense_NK = (
        (labels_MK[cells] * weights[..., None]).sum(dim=1)
        for weights, cells in ((ours.weights_Nk, ours.cells_Nk), (weights_Nk, cells_Nk))
    )
    num_other = int((ours.cells_Nk.sort(dim=1).values != cells_Nk.sort(dim=1).values).any(dim=1).sum())
    num_labels = int((own_NK.argmax(dim=1) != dense_NK.argmax(dim=1)).sum())
    off = (own_NK - dense_NK).abs().max()
    return f"{num_labels} of {len(own_NK)} labels and {num_other} sets of cells differ; soft labels by {off:.0e}"


def best_of(name: str, methods: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """The least of each figure, over processes that take turns."""
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for _ in range(repeats):
        for method in methods:
            command = [sys.executable, "-m", "tests.benchmarks.bench_propagation", "--one", name, method]
            runs[method].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {method: {key: min(run[key] for run in found) for key in found[0]} for method, found in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="without the growth with area and context")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "METHOD"))
    parser.add_argument("--footage", type=Path)
    parser.add_argument("--num-frames", type=int, default=29)
    args = parser.parse_args()
    if args.footage:
        print(json.dumps(footage(args.footage, args.num_frames)))
        return
    if args.one:
        name, method = args.one
        print(json.dumps(measure({**CASES, **GROWTH}[name], method)))
        return
    torch.set_num_threads(1)
    print(f"<!-- {json.dumps(environment())} -->\n")
    print("| case | tiles, s | dense, s | faster | tiles, MB | dense, MB | agreement |\n|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        found = best_of(name, ("tiles", "dense"), args.repeats)
        seconds, memory = ([found[m][key] for m in ("tiles", "dense")] for key in ("cpu_seconds", "memory_mb"))
        print(
            f"| {name} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.1f}x | {memory[0]:.0f} | "
            f"{memory[1]:.0f} | {agreement(case)} |",
            flush=True,
        )
    if args.quick:
        return
    print("\n| first frame dense, radius 12 | cells | tiles, s | tiles, MB |\n|---|---|---|---|")
    for name, case in GROWTH.items():
        found = best_of(name, ("tiles",), args.repeats)["tiles"]
        cells = case.height * case.width
        print(f"| {name} | {cells} | {found['cpu_seconds']:.2f} | {found['memory_mb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
