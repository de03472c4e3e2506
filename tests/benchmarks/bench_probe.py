"""Heads, neighbors and retrieval on features as large as those of UCF101 and Kinetics, and their agreement with scikit-learn.

Usage: python -m tests.benchmarks.bench_probe [--only heads|optimum|neighbors|agreement|kinetics] [--threads 2] [--scratch DIR]. The
features are made up: 101 classes of 25 groups, each a point of its own, and noise, so that a linear head is right for
about every second test video. Kinetics (650,000 x 1,024) lies in a file of 2.7 GB below DIR and is read as a map; memory is
what a fresh process takes at most (PSS, every half second).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_embed import memory_of_tree

UCF101 = (9537, 3783, 512, 101)  # training videos, test videos, width, classes: split 1
KINETICS = (650_000, 1024, 400)
KINETICS_QUERIES = 500
POLL_SECONDS = 0.5  # a look takes tens of milliseconds


def made_up(num_train: int, num_test: int, width: int, num_classes: int, *, seed: int = 0) -> Any:
    """Train and test features with labels and groups; no group is on both sides."""
    import numpy as np

    from ssvid.features.store import Features

    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(64, width)) * np.geomspace(3, 0.3, 64)[:, None]  # features of a network spread unevenly
    classes = 0.35 * rng.normal(size=(num_classes, 64))
    groups = 0.6 * rng.normal(size=(num_classes, 25, 64))

    def side(num: int, first: int, last: int) -> Features:
        codes = np.sort(np.arange(num) % num_classes)
        group = rng.integers(first, last, num)
        inner = classes[codes] + groups[codes, group] + 0.6 * rng.normal(size=(num, 64))
        values = np.maximum(inner @ axes + 0.5 * rng.normal(size=(num, width)) + 0.5, 0)  # after a ReLU
        return Features.from_arrays(
            values, [f"c{c:03d}" for c in codes], groups=[f"{c}-{g}" for c, g in zip(codes, group, strict=True)]
        )

    return side(num_train, 7, 25), side(num_test, 0, 7)


def timed(function: Any) -> tuple[Any, str]:
    """What it gives, and its wall time beside the time of all its threads: on a busy machine the wall tells little."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, f"{time.perf_counter() - wall:.2f} wall, {time.process_time() - cpu:.2f} CPU"


def heads(scratch: Path) -> dict[str, Any]:
    """24 heads x 100 epochs by SGD on the held-out split, then the chosen one on all of train, then test."""
    from ssvid.evals.linear_probe.probe import linear_probe
    from ssvid.features.protocol import ProbeProtocol

    train, test = made_up(*UCF101)
    sgd = ProbeProtocol(solver="sgd", num_holdouts=1)
    num_heads = len(sgd.learning_rates) * len(sgd.weight_decays)
    bank, seconds = timed(lambda: linear_probe(train, test, sgd))
    return {
        f"SGD, {num_heads} heads x {sgd.head_epochs} epochs, chosen, refitted, tested: seconds": seconds,
        "SGD: top-1": bank.top1,
        "SGD: top-1 on held-out train": bank.selection.heldout_top1,
    }


def optimum(scratch: Path) -> dict[str, Any]:
    """L-BFGS to the optimum of 8 penalties on the held-out split, then of the chosen one on all of train, then test."""
    from ssvid.evals.linear_probe.probe import linear_probe
    from ssvid.features.protocol import ProbeProtocol

    train, test = made_up(*UCF101)
    path, seconds = timed(lambda: linear_probe(train, test, ProbeProtocol(num_holdouts=1)))
    return {
        "L-BFGS, 8 penalties to the optimum, chosen, refitted, tested: seconds": seconds,
        "L-BFGS: top-1": path.top1,
    }


def neighbors(scratch: Path) -> dict[str, Any]:
    """Weighted k-NN for four k from one search, and R@1, 5, 10, 20, 50."""
    from ssvid.evals.neighbors.knn import score_neighbors
    from ssvid.evals.neighbors.retrieval import retrieve
    from ssvid.features.protocol import ProbeProtocol, RetrievalProtocol

    train, test = made_up(*UCF101)
    knn, knn_seconds = timed(lambda: score_neighbors(train, test, ProbeProtocol(knn_ks=(10, 20, 100, 200))))
    found, seconds = timed(lambda: retrieve(train, test, RetrievalProtocol()))
    coclr, coclr_seconds = timed(lambda: retrieve(train, test, RetrievalProtocol(manner="coclr", centering="separate")))
    return {
        "k-NN, k = 10, 20, 100, 200: seconds": knn_seconds,
        "k-NN, k = 20: top-1": float(knn.knn_correct[20].mean()),
        "R@1, 5, 10, 20, 50: seconds": seconds,
        "R@1": float(found.hits[1].mean()),
        "R@1, 5, 10, 20, 50, centered: seconds": coclr_seconds,
        "R@1, centered": float(coclr.hits[1].mean()),
    }


def agreement(scratch: Path) -> dict[str, Any]:
    """Our probe and neighbors against scikit-learn's, at full size, float64."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    from ssvid.evals.linear_probe.probe import linear_probe
    from ssvid.evals.neighbors.knn import search
    from ssvid.features.protocol import ProbeProtocol

    train, test = made_up(*UCF101)
    penalty = 0.01
    protocol = ProbeProtocol(regularization=(penalty,), num_holdouts=1, max_iterations=5000)
    ours, seconds = timed(lambda: linear_probe(train, test, protocol))
    scaler = StandardScaler().fit(train.values_ND.astype(np.float64))
    model = LogisticRegression(C=1 / (penalty * len(train.ids)), max_iter=5000, tol=1e-6)
    x, queries = (scaler.transform(f.values_ND.astype(np.float64)) for f in (train, test))
    _, their_seconds = timed(lambda: model.fit(x, np.array(train.labels)))
    same = model.predict(queries) == np.array(ours.predictions)
    found = search(test, train, 50)
    oracle = NearestNeighbors(n_neighbors=50, metric="cosine", algorithm="brute").fit(
        train.values_ND.astype(np.float64)
    )
    distances, indices = oracle.kneighbors(test.values_ND.astype(np.float64))
    differing = found.indices_NK != indices
    gaps = np.abs((1 - found.cosines_NK) - distances)
    return {
        f"probe: test videos with the prediction of scikit-learn, of {len(same)}": int(same.sum()),
        "probe: seconds (one held-out fit and one fit)": seconds,
        "probe: seconds of scikit-learn (one fit)": their_seconds,
        f"neighbors that differ from scikit-learn's, of {differing.size}": int(differing.sum()),
        "neighbors: largest difference of a cosine": float(gaps.max()),
        "neighbors: largest difference of a cosine where the neighbor differs": float(gaps[differing].max(initial=0.0)),
    }


def kinetics(scratch: Path) -> dict[str, Any]:
    """R@k of 500 queries in a mapped gallery, and what the process takes before it searches."""
    import numpy as np

    from ssvid.evals.neighbors.retrieval import retrieve
    from ssvid.features.protocol import RetrievalProtocol
    from ssvid.features.store import Features

    num_videos, width, num_classes = KINETICS
    file = kinetics_file(scratch)
    rng = np.random.default_rng(1)
    values = np.load(file, mmap_mode="r")
    codes = np.arange(num_videos) % num_classes
    names = [str(i) for i in range(num_videos)]
    train = replace(
        Features.from_arrays(values[:1], ["x"]), values_ND=values, ids=tuple(names), groups=tuple(names),
        labels=tuple(f"c{c}" for c in codes), stage_columns={"features": (0, width)},
    )  # fmt: skip
    asked = np.sort(rng.choice(num_videos, KINETICS_QUERIES, replace=False))
    # Read, not mapped: pages of the map that are touched here would count as memory that the search takes.
    with open(file, "rb") as raw:
        picked = [np.frombuffer(os.pread(raw.fileno(), 4 * width, values.offset + 4 * width * i), "<f4") for i in asked]
    queries = np.stack(picked) + rng.normal(size=(KINETICS_QUERIES, width)).astype(np.float32)
    test = Features.from_arrays(queries, [train.labels[i] for i in asked])
    before = memory_of_tree(os.getpid())["pss"]
    found, seconds = timed(lambda: retrieve(train, test, RetrievalProtocol()))
    nearest = found.neighbors.indices_NK[:, 0]
    return {
        f"R@k of {KINETICS_QUERIES} queries in {num_videos} x {width}: seconds": seconds,
        "the process before the search, MB": before,
        "the gallery's file, MB": file.stat().st_size / 1e6,
        "queries that found the video they were made of, %": 100 * float((nearest == asked).mean()),
    }


def kinetics_file(scratch: Path) -> Path:
    """The gallery as .npy, written in portions."""
    import numpy as np

    num_videos, width, _ = KINETICS
    file = scratch / "gallery.npy"
    if not file.exists():
        partial = file.with_suffix(".part")
        rng = np.random.default_rng(0)
        with open(partial, "wb") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": (num_videos, width)}
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, num_videos, 10_000):
                out.write(rng.standard_normal((min(10_000, num_videos - start), width), dtype=np.float32).data)
        partial.rename(file)
    return file


def in_a_process(what: str, scratch: Path, threads: int) -> tuple[dict[str, Any], float]:
    """Run one measurement in a fresh process; its figures and the peak PSS in MB."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_probe", "--measure", what, "--scratch", str(scratch)]
    settings = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=settings)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process.pid)["pss"])
        time.sleep(POLL_SECONDS)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"{what} failed")
    return json.loads(process.stdout.read()), peak


MEASURES = {"heads": heads, "optimum": optimum, "neighbors": neighbors, "agreement": agreement, "kinetics": kinetics}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--scratch", type=Path, help="where the gallery of Kinetics size is kept (default: a temporary folder)"
    )
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.scratch or Path(temporary)
        if args.measure:
            print(json.dumps(MEASURES[args.measure](folder)))
        else:
            for name in [args.only] if args.only else MEASURES:
                if name == "kinetics":
                    kinetics_file(folder)
                figures, megabytes = in_a_process(name, folder, args.threads)
                for title, value in (figures | {"peak PSS, MB": megabytes}).items():
                    shown = value if isinstance(value, str) else f"{value:.6g}"
                    print(f"{name:10} {title:90} {shown}", flush=True)
