"""What each network is and costs: parameters, operations, time of a step on one CPU thread. Prints Markdown.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_backbones [--names s3d s3dg] [--repeats 2]

Operations are counted by ``torch.utils.flop_counter`` on the meta device, a multiplication and an addition as two, for
one clip of the length and size that the network is meant for. Time is measured on two clips of 8 x 32 x 32, or of the least
that the network takes (caffenet: 8 x 35 x 35, early_fusion and slow_fusion: 10 x 32 x 32), forward and backward in training: the fastest of the repeats, divided by two.
"""

import argparse
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssvid.backbones import Backbone, create_backbone, initialize_backbone, list_backbones


def giga_operations(name: str) -> float:
    """Floating-point operations of a forward pass over one clip, in 10^9."""
    with torch.device("meta"):
        network = create_backbone(name).eval()
        clip = torch.rand(1, 3, network.info.num_frames, network.info.size, network.info.size)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(clip)
    return counter.get_total_flops() / 1e9


def step_seconds(network: Backbone, repeats: int) -> float:
    """Forward and backward over two clips, per clip."""
    side = max(32, network.info.min_px)
    clips = torch.rand(2, 3, max(8, network.info.min_frames), side, side)
    seconds = []
    for _ in range(repeats + 1):  # the first is slower than all that follow
        start = time.perf_counter()
        network(clips).mean().backward()
        seconds.append((time.perf_counter() - start) / 2)
    return min(seconds[1:])


def row(name: str, repeats: int) -> str:
    network = initialize_backbone(name).train()
    info = network.info
    count = sum(p.numel() for p in network.parameters())
    cells = [
        f"`{name}`",
        f"{count:,}",
        f"{info.num_frames}x{info.size}x{info.size}",
        f"{giga_operations(name):.1f}",
        f"{step_seconds(network, repeats):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=list_backbones())
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | parameters | clip | GFLOP forward | step, s per clip of 8x32x32 |\n|---|---|---|---|---|")
    for name in args.names:
        print(row(name, args.repeats), flush=True)


if __name__ == "__main__":
    main()
