"""``demo``: the whole way in minutes. Videos are rendered and encoded; a network and its placebo learn from them side by
side; both are scored beside their random initialization; the backbone is exported.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssvid.data.collection import load_manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.errors import SsvidError, did_you_mean
from ssvid.evals.contract import LabeledData, Tools
from ssvid.exports import export, load_backbone
from ssvid.files import takes_paths
from ssvid.programs.demo_layers import LayersDemoResult, run_layers_demo
from ssvid.programs.demo_speed import SpeedDemoResult, run_speed_demo
from ssvid.programs.evaluate import score
from ssvid.programs.pretrain import PretrainResult
from ssvid.programs.scored_videos import scored_rows
from ssvid.progress import Say, every_tenth, speaker
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import ProbeRecipe
from ssvid.results.rows import Difference, ResultRow, compare_rows, render_table, write_results
from ssvid.train.loggers import read_metrics
from ssvid.train.run_folder import RunFolder, next_free

PRETRAIN, PROBE = "demo/speediness", "demo/probe"
NUM_TRAIN, NUM_TEST, SECONDS, SIZE_PX = 400, 200, 3.0, 64
ARMS = {"pretrained": (), "placebo": ("task.placebo=true",)}
POLL_SECONDS = 2.0
OTHERS = ("speed", "layers")


@dataclass
class DemoResult:
    """What the demo leaves: its rows, paired differences of the linear probe, folders, seconds per part."""

    rows: list[ResultRow]
    differences: dict[str, Difference]
    folder: Path
    pretext: dict[str, dict[str, float]]
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "rows": [
                {"name": r.name, "metric": r.metric, "value": r.value, "interval95": list(r.interval)}
                for r in self.rows
            ],
            "differences": {k: {"mean": d.mean, "interval95": list(d.interval)} for k, d in self.differences.items()},
            "pretext": self.pretext,
            "seconds": self.seconds,
            "folder": str(self.folder),
        }

    def __str__(self) -> str:
        folder = self.folder
        told = "\n".join(
            f"  {100 * d.mean:+.1f} points [{100 * d.interval[0]:+.1f}, {100 * d.interval[1]:+.1f}]  {name}"
            for name, d in self.differences.items()
        )
        pretext = "; ".join(f"{name} {m['accuracy']:.3f}" for name, m in self.pretext.items())
        return f"""\
{render_table(self.rows)}

Speediness on held-out videos (chance 0.50): {pretext}
Linear probe, paired over the test videos:
{told}
"random" is this network before training, "placebo" the same training with the labels of other videos: what it gains is owed to
training as such, and only what lies above it to the pretext task. One seed; five are in docs/results/demo.md.

exported backbone   {folder / "export"}   ssvid.load_backbone("{folder / "export"}")
what the task sees  {folder / "pretrained" / "pictures"}
every number        {folder / "results.json"}
Your own videos:    ssvid pretrain pretrain/speediness_tiny data.root=FOLDER"""


@takes_paths("out")
def demo(
    out: str | Path | None = None, *, what: str | None = None, seed: int = 0, show_progress: bool = True
) -> DemoResult | SpeedDemoResult | LayersDemoResult:
    """Run the demo in a new folder (``runs/demo``, numbered, where ``out`` is None).

    Args:
        what: None is the whole way from videos to an exported network; ``speed`` has a network watch a video whose speed changes
            on a known schedule, and shows what ``ssvid speed`` makes of it; ``layers`` takes a rendered scene apart, beside what is
            known of it.

    Raises:
        SsvidError: ``out`` exists, or a part failed.
    """
    say = speaker(show_progress)
    folder = Path(out) if out is not None else next_free("runs", "demo")
    if what is not None and what not in OTHERS:
        raise SsvidError(f"what ({what!r}) is no demo. {did_you_mean(what, OTHERS)} Leave it out for the whole way.")
    if folder.exists() and any(folder.iterdir()):
        raise SsvidError(f"demo folder {folder} exists; it is never overwritten. Choose another with --out.")
    if what == "speed":
        return run_speed_demo(folder, seed, say, show_progress)
    if what == "layers":
        return run_layers_demo(folder, seed, say, show_progress)
    return _whole_way(folder, seed, say)


def _whole_way(folder: Path, seed: int, say: Say) -> DemoResult:
    seconds: dict[str, float] = {}
    videos = folder / "videos"
    with _timed("videos", seconds):
        say(f"1/4 rendering and encoding {NUM_TRAIN + NUM_TEST} videos, {SECONDS:g} s at {SIZE_PX} px -> {videos}")
        made = SyntheticVideos(NUM_TRAIN, NUM_TEST, SECONDS, size_px=SIZE_PX)
        synthesize(videos, made, progress=every_tenth(say, "    videos"))
    with _timed("pretraining", seconds):
        say("2/4 pretraining without labels, and its placebo beside it")
        train_side_by_side(folder, videos, seed, say)
    with _timed("evaluation", seconds):
        say("3/4 scoring frozen features")
        rows = evaluate_arms(folder, videos, say)
    with _timed("export", seconds):
        say("4/4 exporting")
        export(RunFolder(folder / "pretrained").last_checkpoint, folder / "export")
    pretext = {name: dict(read_result(folder / name)) for name in ARMS} | {"untrained": read_untrained(folder)}
    first = {row.name: row for row in rows if row.metric == "probe_top1"}
    differences = {
        f"pretrained - {other}": compare_rows(first["pretrained"], first[other]) for other in ("random", "placebo")
    }
    result = DemoResult(rows, differences, folder, pretext, seconds)
    write_results(
        folder / "results.json", rows, extra={"demo": {k: v for k, v in result.as_dict().items() if k != "rows"}}
    )
    say("done: " + ", ".join(f"{part} {s:.0f} s" for part, s in seconds.items()))
    return result


def read_result(run_dir: Path) -> dict[str, float]:
    """The last validation metrics of a run."""
    metrics: dict[str, float] = {}
    for line in read_metrics(RunFolder(run_dir).metrics):
        metrics |= {k.removeprefix("val/"): float(v) for k, v in line.items() if k.startswith("val/")}
    return metrics


def read_untrained(folder: Path) -> dict[str, float]:
    """The pretext metrics before the first step, the same for the network and its placebo."""
    return PretrainResult.read(RunFolder(folder / "pretrained").results).untrained["better"]


def train_side_by_side(folder: Path, videos: Path, seed: int, say: Say) -> None:
    """Two processes of one thread each: on two shared cores faster and steadier than two threads in one process."""
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    logs = {name: folder / f"{name}.log" for name in ARMS}
    try:
        for name, overrides in ARMS.items():
            command = [sys.executable, "-m", "ssvid", "pretrain", PRETRAIN, f"data.root={videos}", f"seed={seed}"]
            command += ["trainer.threads=1", *overrides, "--run-dir", str(folder / name)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            with open(logs[name], "wb") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        told: dict[str, int] = {}
        while any(process.poll() is None for process in running.values()):
            time.sleep(POLL_SECONDS)
            _tell_epochs(folder, told, say)
            _raise_failed(running, logs)
        _raise_failed(running, logs)
        _tell_epochs(folder, told, say)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()


def _tell_epochs(folder: Path, told: dict[str, int], say: Say) -> None:
    for name in ARMS:
        path = RunFolder(folder / name).metrics
        lines = [line for line in read_metrics(path) if "val/accuracy" in line] if path.exists() else []
        for line in lines[told.get(name, 0) :]:
            say(f"    {name:10}  epoch {line['epoch'] + 1}  held-out accuracy {line['val/accuracy']:.3f} (chance 0.50)")
        told[name] = len(lines)


def _raise_failed(running: dict[str, subprocess.Popen[bytes]], logs: dict[str, Path]) -> None:
    for name, process in running.items():
        if process.poll():
            tail = logs[name].read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
            raise SsvidError(
                f"the {name} run ended with code {process.returncode}. The end of {logs[name]}:\n" + "\n".join(tail)
            )


def evaluate_arms(folder: Path, videos: Path, say: Say) -> list[ResultRow]:
    loaded = load_recipe(PROBE, [f"data.root={videos}"], kind="probe")
    config: ProbeRecipe = loaded.recipe  # type: ignore[assignment]
    manifest = load_manifest(config.data)
    data = LabeledData.checked(manifest, *scored_rows(manifest))
    networks = {name: load_backbone(folder / name) for name in ARMS}
    tools = Tools(cache_dir=folder / "features", seed=config.seed, say=lambda text: say(f"    {text}"))
    return score(config, networks, networks["pretrained"], data, tools).rows


@contextlib.contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(time.perf_counter() - started, 1)
