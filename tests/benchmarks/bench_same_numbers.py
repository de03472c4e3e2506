"""Whether a commit computes what another one did: the same commands with both, and every number that they leave compared.

Usage: [SSVID_REAL_DATA=DIR] python -m tests.benchmarks.bench_same_numbers --against COMMIT [--out DIR] [--only NAME ...]

Pretrains (and its placebo), probes, retrieves, fine-tunes, audits and embeds on a small synthetic set, and on Weizmann where the
real videos are. Everything in results.json is compared to the last digit, and features to the last bit, except for what tells of time,
place and versions. What differs is printed, a line for each key, with both values. Exit code 1 where something differs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_harness import weizmann_lists

ROOT = Path(__file__).resolve().parents[2]
# Keys of results that tell of time, place, versions and words, not of numbers.
FREE = re.compile(
    r"versions|seconds|created|host|git|command|path|folder|checkpoint$|run_dir|cache|recipe|note|title|date|_sha256$|protocol|^perf/|^data/wait"
)
# Words of a command line that the older commit takes under another name: what is written for the newer one -> for the older.
OLDER: dict[str, str] = {
    "finetune.num_frames=8 optim.epochs=2 optim.warmup_epochs=1": "finetune.num_frames=8 finetune.epochs=2 finetune.warmup_epochs=1",
}
# Names of rows that the older commit wrote otherwise: what it wrote -> what is written now.
ROWS = {"floor": "histograms"}
SMALL = ("features.num_frames=8", "features.num_clips=2", "features.resize_px=56", "features.crop_px=48")
COMMANDS = {
    "pretrain": "pretrain smoke/speediness data.root={data} optim.epochs=2 trainer.accelerator=cpu --run-dir pretrained",
    "placebo": "pretrain smoke/speediness data.root={data} optim.epochs=2 trainer.accelerator=cpu task.placebo=true --run-dir placebo",
    "colorization": "pretrain smoke/colorization data.root={data} optim.epochs=1 trainer.accelerator=cpu --run-dir colorization",
    "probe": "probe probe/folder {labeled} {small} --backbone pretrained --placebo placebo --out probe --device cpu",
    "named": "probe folder-linear@1 {labeled} --backbone pretrained --out named --device cpu",
    "retrieve": "retrieve retrieve/folder {labeled} {small} --backbone pretrained --placebo placebo --out retrieve --device cpu",
    "finetune": "finetune finetune/folder {labeled} finetune.num_frames=8 optim.epochs=2 optim.warmup_epochs=1 "
    "finetune.num_clips=2 finetune.resize_px=56 finetune.crop_px=48 trainer.accelerator=cpu --backbone pretrained --run-dir finetune",
    "audit": "audit pretrained --max-videos 8 --out audit",
    "embed": "embed {videos} --backbone pretrained --out features.npz --device cpu",
}


def run(name: str, words: str, source: Path, folder: Path, cache: Path) -> None:
    """One command with the code of ``source``."""
    env = os.environ | {"PYTHONPATH": str(source), "SSVID_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ssvid", *words.split()], cwd=folder, env=env, capture_output=True, text=True
    )
    (folder / f"{name}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{source}: {words}\n{done.stderr[-3000:]}")


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """What differs between two trees of JSON, a line for each leaf."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            if not FREE.search(key):
                yield from differences(a.get(key, "absent"), b.get(key, "absent"), f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            label = f"{x.get('name')} {x.get('metric')}" if isinstance(x, dict) and "metric" in x else str(i)
            yield from differences(x, y, f"{where}[{label}]")
    elif a != b and not (isinstance(a, float) and isinstance(b, float) and np.isnan(a) and np.isnan(b)):
        yield f"{where}: {str(a)[:60]} -> {str(b)[:60]}"


def left(folder: Path) -> Iterator[Path]:
    """The files with numbers that the commands left, relative to the folder."""
    for pattern in ("*/results.json", "*/metrics.jsonl", "*/audit.json", "*.npz"):
        yield from sorted(path.relative_to(folder) for path in folder.glob(pattern))


def compare(old: Path, new: Path) -> list[str]:
    """What differs in all files."""
    lines = [f"{path} is absent in one" for path in {*left(old)} ^ {*left(new)}]
    for path in left(old):
        if not (new / path).is_file():
            continue
        if path.suffix == ".npz":
            with np.load(old / path) as a, np.load(new / path) as b:
                names = [
                    n for n in a.files if a[n].dtype.kind == "f" and not np.array_equal(a[n], b[n], equal_nan=True)
                ]
            lines += [f"{path}: {name}" for name in names]
            continue
        a, b = (_read(folder / path) for folder in (old, new))
        lines += [f"{path}{line}" for line in differences(a, b)]
    return lines


def _read(path: Path) -> Any:
    text = path.read_text()
    for old, new in ROWS.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _knows_optim(folder: Path) -> bool:
    """Whether a commit calls the settings of a fine-tuning's optimizer what they are called now."""
    settings = folder / "ssvid/settings.py"
    return settings.is_file() and "OLD_OPTIM" in settings.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--out", type=Path, help="what the older commit left here is not computed again")
    parser.add_argument("--only", nargs="*", choices=COMMANDS, help="these commands (and pretraining, which they need)")
    args = parser.parse_args()
    out = (args.out or Path(tempfile.mkdtemp(prefix="same"))).resolve()
    out.mkdir(parents=True, exist_ok=True)
    older = out / "older"
    if not older.is_dir():
        older.mkdir()
        archive = subprocess.run(["git", "archive", args.against], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(older)], input=archive, check=True)
    if not (out / "videos").is_dir():
        run(
            "synth",
            "data synth videos --train 60 --test 30 --seconds 2 --size 64 --seed 1",
            older,
            out,
            out / "cache-old",
        )
    sets = {"synthetic": "data.name=class_folder data.root=../../videos"}
    if real := os.environ.get("SSVID_REAL_DATA"):
        videos = weizmann_lists(Path(real), out)[0]
        sets["weizmann"] = f"data.name=list data.root={real}/weizmann data.list={videos}"
    lines = []
    for source, name in ((older, "old"), (ROOT, "new")):
        for title, labeled in sets.items():
            folder = out / name / title
            if name == "new":
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            for key, words in COMMANDS.items():
                done = folder / f"{key}.done"
                needed = not args.only or key in (*args.only, "pretrain", "placebo")
                if (
                    done.is_file()
                    or not needed
                    or (title != "synthetic" and key in ("pretrain", "placebo", "colorization", "audit"))
                ):
                    continue
                if title != "synthetic":
                    words = words.replace("pretrained", "../synthetic/pretrained").replace(
                        "--placebo placebo", "--placebo ../synthetic/placebo"
                    )
                words = words.format(
                    data="../../videos data.name=folder",
                    labeled=labeled,
                    small=" ".join(SMALL),
                    videos="../../videos" if title == "synthetic" else f"{real}/weizmann",
                )
                if name == "old" and not _knows_optim(older):
                    for new_word, old_word in OLDER.items():
                        words = words.replace(new_word, old_word)
                print(f"{name} {title} {key}", flush=True)
                run(key, words, source, folder, out / f"cache-{name}")
                done.touch()
    for title in sets:
        lines += [f"{title}/{line}" for line in compare(out / "old" / title, out / "new" / title)]
    print("\n".join(lines) or "every number is the same")
    return bool(lines)


if __name__ == "__main__":
    raise SystemExit(main())
