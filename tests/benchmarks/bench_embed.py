"""Embedding against its bare loader and its bare network: clips per second, and the memory of all processes together.

Usage: python -m tests.benchmarks.bench_embed [--only tiny3d|r3d_18] [--num-videos N] [--workers N] [--device cpu]. Renders synthetic
videos (3 s, 128 px, 8 clips each) into a temporary folder: 125 for 1,000 clips of tiny3d, 25 for 200 clips of r3d_18.
Each figure comes from a fresh process with one torch thread, so that cores are left to the reading processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLIPS_PER_VIDEO = 8
NUM_VIDEOS = {"tiny3d": 125, "r3d_18": 25}
POLL_SECONDS = 0.05


def prepared(name: str, videos: Path, workers: int, num_videos: int):
    """Network, table, resolved protocol and the reads, as ssvid embed has them."""
    import torch

    from ssvid.backbones import initialize_backbone
    from ssvid.data.manifest import Manifest
    from ssvid.features.file import EmbedProtocol
    from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol
    from ssvid.features.reading import Read

    torch.set_num_threads(1)
    network = initialize_backbone(name).eval()
    manifest = Manifest.load(videos / "manifest.csv")
    manifest = manifest.with_rows(manifest.rows[:num_videos])
    asked = FeatureProtocol(num_clips=CLIPS_PER_VIDEO, batch_size=8, workers=workers, stages="trained")
    protocol = EmbedProtocol(resolve_feature_protocol(asked, network.info))
    return network, manifest, protocol, [Read(row, protocol.starts(row)) for row in manifest.rows]


def bare_loader(name: str, videos: Path, workers: int, device: str) -> dict[str, float]:
    """Read every clip, and do nothing with it."""
    from ssvid.features.reading import read_in_order

    _, manifest, protocol, reads = prepared(name, videos, workers, NUM_VIDEOS[name])
    started = time.perf_counter()
    clips = sum(len(item.clips_VTCHW) for item in read_in_order(manifest, reads, protocol.features))
    return {"clips": clips, "seconds": time.perf_counter() - started}


def bare_network(name: str, videos: Path, workers: int, device: str) -> dict[str, float]:
    """Embed the clips of the first two videos, which lie in memory."""
    import torch

    from ssvid.features.passes import evaluation_mode
    from ssvid.features.reading import ClipItem, clips_of, read_in_order

    network, manifest, protocol, reads = prepared(name, videos, 0, 2)
    items = [ClipItem(0, item.clips_VTCHW) for item in read_in_order(manifest, reads, protocol.features)]
    network.to(device)
    with evaluation_mode(network):
        started = time.perf_counter()
        for item in items:
            clips = clips_of([item], torch.device(device))
            network.embed_stages(clips, protocol.features.stage_names, "avg")
        if device == "cuda":
            torch.cuda.synchronize()
    return {"clips": len(items) * CLIPS_PER_VIDEO, "seconds": time.perf_counter() - started}


def embed(name: str, videos: Path, workers: int, device: str) -> dict[str, float]:
    """What ssvid embed does, but for the start of Python and torch."""
    from ssvid.features import passes
    from ssvid.features.file import embed_videos

    network, manifest, protocol, _ = prepared(name, videos, workers, NUM_VIDEOS[name])
    spent = {"waiting": 0.0, "network": 0.0}
    passes._embedded = timed(passes._embedded, spent)
    passes.read_in_order = waited(passes.read_in_order, spent)
    started = time.perf_counter()
    report = embed_videos(network, manifest, protocol, videos.parent / f"{name}.npz", device=device)
    seconds = time.perf_counter() - started
    return {"clips": report.num_clips, "seconds": seconds, "rest": seconds - sum(spent.values())}


def timed(function: Any, spent: dict[str, float]) -> Any:
    """The same function, its seconds added to those of the network."""

    def measured(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent["network"] += time.perf_counter() - started

    return measured


def waited(function: Any, spent: dict[str, float]) -> Any:
    """The same generator, the seconds that its next item took added to those of waiting."""

    def measured(*arguments: Any, **options: Any) -> Any:
        items = function(*arguments, **options)
        while True:
            started = time.perf_counter()
            item = next(items, None)
            spent["waiting"] += time.perf_counter() - started
            if item is None:
                return
            yield item

    return measured


def memory_of_tree(root: int) -> dict[str, float]:
    """MB of a process and its descendants. rss counts shared pages once per process, pss once."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it ended meanwhile
                continue
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    total = {"rss": 0.0, "pss": 0.0}
    for pid in tree:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(":")
            if key.lower() in total:
                total[key.lower()] += int(value.split()[0]) / 1000
    return total


def in_a_process(what: str, name: str, videos: Path, workers: int, device: str) -> dict[str, float]:
    """Run one of the three in a fresh process; clips per second, and the peak memory of its tree in MB."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_embed", "--measure", what, "--only", name]
    command += ["--num-videos", str(NUM_VIDEOS[name])]
    command += ["--videos", str(videos), "--workers", str(workers), "--device", device]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak = {"rss": 0.0, "pss": 0.0}
    while process.poll() is None:
        now = memory_of_tree(process.pid)
        peak = {key: max(peak[key], now[key]) for key in peak}
        time.sleep(POLL_SECONDS)
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    if process.returncode:
        raise SystemExit(f"{what} of {name} failed")
    return found | {"per_s": found["clips"] / found["seconds"]} | peak


def report(names: list[str], workers: int, device: str) -> None:
    from ssvid.data.synth import SyntheticVideos, synthesize

    with tempfile.TemporaryDirectory() as scratch:
        videos = Path(scratch) / "videos"
        synthesize(videos, SyntheticVideos(num_train=max(NUM_VIDEOS[name] for name in names), num_test=0))
        print(f"{'':26}{'clips':>6}{'seconds':>9}{'clips/s':>9}{'peak RSS, MB':>14}{'peak PSS, MB':>14}", flush=True)
        for name in names:
            for what in MEASURES:
                f = in_a_process(what, name, videos, workers, device)
                print(
                    f"{name + ' ' + what:26}{f['clips']:6.0f}{f['seconds']:9.1f}{f['per_s']:9.1f}{f['rss']:14.0f}"
                    f"{f['pss']:14.0f}" + (f"   neither waiting nor network: {f['rest']:.1f} s" if "rest" in f else ""),
                    flush=True,
                )


MEASURES = {"bare_loader": bare_loader, "bare_network": bare_network, "embed": embed}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NUM_VIDEOS)
    parser.add_argument("--num-videos", type=int, help="fewer or more videos than the default, of 8 clips each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--videos", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.num_videos:
        NUM_VIDEOS.update(dict.fromkeys(NUM_VIDEOS, args.num_videos))
    if args.measure:
        print(json.dumps(MEASURES[args.measure](args.only, args.videos, args.workers, args.device)))
    else:
        report([args.only] if args.only else list(NUM_VIDEOS), args.workers, args.device)
