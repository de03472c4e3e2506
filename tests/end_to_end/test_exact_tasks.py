"""Every task of the shelf, by its smoke recipe: the same batches and weights whatever the workers, the processes, the restarts."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

import pretext_tasks
from ssvid.data.collection import split_rows
from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import BatchLayout, TrainBatches
from ssvid.data.index.signals import measure_signals_of
from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.tasks import tasks
from tests.end_to_end.test_exactness import run, run_on_two, samples, weights

NAMES = [name for name in tasks.names() if tasks.get(name).__module__.startswith("pretext_tasks.")]
STEPS_PER_EPOCH, BATCH = 3, 4
SHORT = ("optim.epochs=2", "optim.warmup_epochs=0", f"loader.global_batch={BATCH}", "loader.workers_per_device=0")
WATCHED = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.save_every_steps=1", "trainer.pictures=false")


@pytest.fixture(scope="module")
def actions(tmp_path_factory) -> list[str]:
    """Overrides to train on twelve labeled videos and to validate on eight, two of each label."""
    folder = tmp_path_factory.mktemp("actions") / "videos"
    rows = synthesize(folder, SyntheticVideos(STEPS_PER_EPOCH * BATCH, 8, size_px=64, motions="actions")).rows
    manifest = Manifest(folder, tuple(replace(row, split={"test": "val"}.get(row.split, row.split)) for row in rows))
    manifest.save(folder / "manifest.csv")
    measure_signals_of(manifest)
    return ["data.name=manifest", f"data.root={folder}"]


def test_every_file_of_the_shelf_is_among_them():
    files = [path.stem for path in Path(pretext_tasks.__file__).parent.glob("*.py") if not path.stem.startswith("_")]
    assert len(NAMES) == len(files) > 11


def hashes(name: str, data: list[str], workers: int = 0, rank: int = 0, world: int = 1) -> dict[tuple[int, ...], str]:
    """Ticket -> hash of what one process is given of one epoch of a smoke recipe."""
    config = load_recipe(f"smoke/{name}", [*data, *SHORT]).recipe
    manifest = Manifest.load(Path(config.data.root) / "manifest.csv")
    task = build_networks(config)[1]
    rows = split_rows(manifest, config.data, config.seed)[0].rows
    dataset = ClipDataset(manifest, rows, task.clip_maker(training=True), seed=config.seed)
    layout = BatchLayout(BATCH, world, clips_per_video=config.loader.clips_per_video)
    batches = TrainBatches(len(rows), layout, seed=config.seed, rank=rank, position=lambda: (0, 0))
    seen: dict[tuple[int, ...], str] = {}
    for batch in ClipLoader(dataset, batches, LoaderConfig(workers_per_device=workers)):
        pixels = {key: value for key, value in batch.items() if key not in ("tickets", "unreadable")}
        for i, ticket in enumerate(tickets_of(batch)):
            digest = hashlib.sha256()
            for key in sorted(pixels):
                digest.update(key.encode() + pixels[key][i].numpy().tobytes())
            seen[tuple(ticket)] = digest.hexdigest()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_the_same_for_any_number_of_workers_and_processes(name, actions):
    alone = hashes(name, actions)
    assert len(alone) == len(set(alone.values())) >= STEPS_PER_EPOCH * BATCH
    assert hashes(name, actions, workers=1) == alone
    assert hashes(name, actions, workers=2) == alone
    halves = [hashes(name, actions, rank=rank, world=2) for rank in (0, 1)]
    assert [len(half) for half in halves] == [len(alone) // 2] * 2
    assert halves[0] | halves[1] == alone


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_resumes_bit_for_bit(name, actions, tmp_path):
    words, recipe = (*SHORT, *WATCHED), f"smoke/{name}"
    whole = run(tmp_path, actions, "whole", *words, recipe=recipe)
    steps = max(json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines())
    run(
        tmp_path,
        actions,
        "killed",
        *words,
        "loader.workers_per_device=2",
        kill_at=steps // 2 + 1,
        code=9,
        recipe=recipe,
    )
    assert samples(tmp_path / "killed").items() < samples(whole).items()
    again = run(tmp_path, actions, "killed", *words, "loader.workers_per_device=1", resume=True, recipe=recipe)
    assert samples(again) == samples(whole)
    assert weights(again) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_see_the_same_and_resume_bit_for_bit(name, actions, tmp_path):
    words, recipe = (*SHORT, *WATCHED), f"smoke/{name}"
    whole = run(tmp_path, actions, "whole", *words, recipe=recipe)
    assert run_on_two(tmp_path, actions, "two", *words, recipe=recipe) == 0
    assert samples(tmp_path / "two") == samples(whole)
    assert run_on_two(tmp_path, actions, "killed", *words, recipe=recipe, kill_at=3) != 0
    assert run_on_two(tmp_path, actions, "killed", *words, recipe=recipe, resume=True) == 0
    assert samples(tmp_path / "killed") == samples(whole)
    assert weights(tmp_path / "killed") == weights(tmp_path / "two")
