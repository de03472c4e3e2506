"""The losses of the first steps of each smoke recipe, as they were when somebody last looked.

Usage: python -m tests.golden.losses [NAME ...]            write tests/golden/NAME.json anew (all of recipes/smoke)
       python -m tests.golden.losses --spread [NAME ...]   how far other conditions move them, and how far a change does

Every recipe runs as it is, but for ``OVERRIDES``: a global batch of 4 on 40 videos of 64 px, ten steps (an epoch), one
thread. The videos are coded without loss, so that another version of the encoder makes the same pixels, and PyAV reads them.

Each file holds its tolerance, which is to survive other processors and libraries: about twice the most that ``--spread``
found among what must not matter (no vector instructions, two threads, pixel values off by one), and well below what a
learning rate 20 % higher does. For speediness, absolute: no vector instructions 0.00002, two threads 0.0004, one pixel
value in ten off by one 0.005; learning rate 0.025, another seed 0.19, placebo 0.26. With its warm-up left out, rounding
would move a loss by 0.006: small gradients flip the sign of Adam's first steps. So the recipe's own warm-up stays.

For colorization, absolute: no vector instructions 0.0002, two threads 0.0007; learning rate 0.16, another seed 0.56, placebo
6.4. One pixel value in ten off by one moves it by 0.28, because k-means then ends in another palette: a decoder that rounds
otherwise needs a new record.

For cycle_consistency, absolute: no vector instructions 0.027, two threads 0.004, one pixel value in ten off by one 0.064, most
of it after the fifth step; learning rate 0.037, another seed 0.58, placebo 0.47. Where a square is fitted to an affinity that points
nowhere yet, rounding grows from step to step: the tolerance of 0.06 tells another method, not another learning rate.

For temporal_cycle, absolute: no vector instructions 0.0008, of losses between 2.7 and 5.7. For cubic_puzzle: no vector instructions
0.00007, learning rate 0.014, another seed 0.27, placebo 0.25. For time_contrast: no vector instructions 0.00003, learning rate 0.25.
For sigreg_views: no vector instructions 0.0002.

For masked_pixels, absolute, with three quarters of the cells hidden and 0.6 of the rate: no vector instructions 1e-7, one pixel value in
ten off by one 0.00004; learning rate 0.0014, another seed 0.0035, placebo 0.0008.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

import ssvid
from ssvid.data.feed import dataset
from ssvid.data.index.signals import measure_signals_of
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.machine import versions
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.video import content_id, write_video
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.synthetic import draw_scene, render
from ssvid.video.synthetic_motions import MOTIONS

FOLDER = Path(__file__).parent
RECIPES = FOLDER.parents[1] / "recipes" / "smoke"
TOLERANCE = 0.01  # of a new file
NUM_STEPS, NUM_VIDEOS, NUM_FRAMES, SIZE_PX, FPS = 10, 40, 75, 64, 25.0
OVERRIDES = (
    "data.name=manifest",
    "data.val_fraction=0",
    "loader.global_batch=4",
    "loader.clips_per_video=1",
    "loader.workers_per_device=0",
    "loader.decoder=pyav",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.threads=1",
    "trainer.precision=32",
    "trainer.log_every_steps=1",
    "trainer.pictures=false",
    f"trainer.max_steps={NUM_STEPS}",
)
# Where they are set before torch is loaded, sums are taken in another order, as on a processor without AVX.
NO_VECTORS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def recipe_names() -> list[str]:
    """The smoke recipes, without their folder."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def golden_file(name: str) -> Path:
    """Where the losses of a recipe stand."""
    return FOLDER / f"{name}.json"


def make_videos(folder: Path) -> Path:
    """Forty scenes of ten motions, key frames only, losslessly coded, and their table."""
    rows = []
    for number in range(NUM_VIDEOS):
        scene = draw_scene(MOTIONS[number % len(MOTIONS)], (20, 26, number), SIZE_PX)
        path = folder / f"{number:02d}.mp4"
        frames = render(scene, np.arange(NUM_FRAMES) / FPS).frames_THWC
        write_video(path, frames, FPS, crf=0, preset="ultrafast", gop=1)
        rows.append(
            VideoRow(
                path.name, NUM_FRAMES, FPS, SIZE_PX, SIZE_PX, label=scene.motion, decoders_ok=("pyav",),
                content_id=content_id(path),
            )
        )  # fmt: skip
    Manifest(folder, tuple(rows)).save(folder / "manifest.csv")
    return folder


def first_losses(name: str, videos: Path, run_dir: Path, *overrides: str) -> list[float]:
    """The training loss of the first steps of a recipe, in order."""
    measure_what_is_asked_for(name, videos)
    result = ssvid.pretrain(
        RECIPES / f"{name}.yaml", f"data.root={videos}", *OVERRIDES, *overrides, run_dir=run_dir, show_progress=False
    )
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def measure_what_is_asked_for(name: str, videos: Path) -> None:
    """The per-frame signals of the videos, where the recipe's task plans from them; once, they are remembered."""
    _, task = build_networks(load_recipe(RECIPES / f"{name}.yaml", allow_missing=True).recipe)
    if getattr(task.clip_maker(training=True), "signals", ()):
        measure_signals_of(Manifest.load(videos / "manifest.csv"), workers=1)


def write_golden(name: str, videos: Path, run_dir: Path) -> None:
    """Run a recipe and write its file anew."""
    path = golden_file(name)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    losses = [round(loss, 6) for loss in first_losses(name, videos, run_dir)]
    content = {
        "recipe": f"smoke/{name}",
        "losses": losses,
        "tolerance": before.get("tolerance", TOLERANCE),
        "made_with": versions(),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{golden_file(name)}: {losses}")


# ---- how far do the numbers move?


def noisy_pixels(share: float = 0.1) -> AbstractContextManager[object]:
    """As if another decoder rounded otherwise: a share of all pixel values is off by one, up or down."""
    draw, hand_out = np.random.default_rng(0), dataset.hand_out_frames
    Take = Callable[[int, np.ndarray], None]

    def noisy(take: Take) -> Take:
        def taken(place: int, frame_HWC: np.ndarray) -> None:
            off_HWC = (draw.integers(0, 2, frame_HWC.shape) * 2 - 1) * (draw.random(frame_HWC.shape) < share)
            take(place, (frame_HWC.astype(np.int64) + off_HWC).clip(0, 255).astype(np.uint8))

        return taken

    def handed(reader: VideoReader, clips: Sequence[np.ndarray], put: Sequence[Take]) -> None:
        hand_out(reader, clips, [noisy(take) for take in put])

    return mock.patch.object(dataset, "hand_out_frames", handed)


def spread(name: str, videos: Path, folder: Path) -> None:
    """Print the largest difference over the steps for each condition: first what must not matter, then what must."""
    reference = first_losses(name, videos, folder / "reference")
    conditions: dict[str, tuple[AbstractContextManager[object], Sequence[str]]] = {
        "two threads": (nullcontext(), ["trainer.threads=2"]),
        "one pixel value in ten off by one": (noisy_pixels(), []),
        "learning rate 20 % higher": (nullcontext(), ["optim.base_lr=" + str(1.2 * _base_lr(name))]),
        "another seed": (nullcontext(), ["seed=1"]),
        "placebo": (nullcontext(), ["task.placebo=true"]),
    }
    found = {"no vector instructions": _without_vectors(name, videos)}
    for number, (condition, (around, overrides)) in enumerate(conditions.items()):
        with around:
            found[condition] = first_losses(name, videos, folder / str(number), *overrides)
    for condition, losses in found.items():
        moved = [abs(a - b) for a, b in zip(losses, reference, strict=True)]
        print(f"{name}: {condition}: at most {max(moved):.2e}; by step {' '.join(f'{m:.1e}' for m in moved)}")


def _base_lr(name: str) -> float:
    return float(ssvid.show(RECIPES / f"{name}.yaml").resolved["optim"]["base_lr"])


def _without_vectors(name: str, videos: Path) -> list[float]:
    program = (
        "import sys; from pathlib import Path; from tests.golden.losses import first_losses\n"
        "print(first_losses(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[2]) / ('plain_' + sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, name, str(videos)]
    done = subprocess.run(command, env=os.environ | NO_VECTORS, capture_output=True, text=True, check=True)
    return [float(loss) for loss in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=recipe_names())
    parser.add_argument("--spread", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(Path(folder) / "videos")
        for name in args.names:
            (spread if args.spread else write_golden)(name, videos, Path(folder) / name)


if __name__ == "__main__":
    main()
