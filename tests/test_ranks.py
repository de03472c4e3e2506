"""A prime number of videos on one, two and three processes: each scored once, the same to the last bit."""

import multiprocessing
import os
import subprocess
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssvid.backbones import initialize_backbone
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading, resolve_finetune_protocol
from ssvid.classifiers.scoring import score_videos
from ssvid.data.config import LoaderConfig
from ssvid.errors import SsvidError
from ssvid.features.extracting import extract_features
from ssvid.features.protocol import FeatureProtocol
from ssvid.ranks import from_first, over_ranks, ranks, rows_of_all, share_buffers, share_work, where_all_agree
from ssvid.results.rows import read_results
from ssvid.weights.checkpoints import read_checkpoint

NUM_VIDEOS = 7
FEATURES = FeatureProtocol(num_frames=4, num_clips=2, crop_px=16, resize_px=20, batch_size=2, workers=0)


def evaluate(manifest, done=None):
    """Scores and features of seven videos, one of which cannot be read; ``done`` gets the videos that were opened here."""
    torch.set_num_threads(1)
    backbone = initialize_backbone("tiny3d", {"width": 2}, seed=0).eval()
    protocol = resolve_finetune_protocol(
        FinetuneProtocol(num_frames=4, crop_px=16, resize_px=20, num_clips=2), backbone.info
    )
    task = Classification(protocol, backbone.info, classes=("blue", "green", "red"), chance=1 / 3, seed=0)
    rows = [*manifest.rows[: NUM_VIDEOS - 1], replace(manifest.rows[0], path="gone.mp4", content_id="")]
    reading = clip_reading(protocol, LoaderConfig(workers_per_device=0))
    scores = score_videos(
        backbone, task, manifest, rows, reading, num_crops=3, progress=None if done is None else done.append_count
    )
    return scores, extract_features(backbone, manifest, rows, FEATURES)


class Count:
    """How many videos this process was given."""

    def __init__(self):
        self.num = 0

    def append_count(self, done, total):
        self.num = done


def on_rank(rank, world, store, manifest, queue):
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        done = Count()
        alone = ranks()
        with over_ranks():
            found = evaluate(manifest, done)
            shared = (
                ranks(),
                *where_all_agree(np.array([rank < 5, rank == 0])).tolist(),
                from_first(lambda: rank + 40),
            )
            norm = torch.nn.BatchNorm1d(2)
            norm.running_mean += rank
            share_buffers(norm)
            gathered = rows_of_all(torch.tensor([[rank, 0], [rank, 1]]))
            assert gathered.tolist() == [[other, row] for other in range(world) for row in range(2)]
            with pytest.raises(SsvidError, match="no disk"):
                share_work(3, lambda mine: fail_on_one(rank))
        queue.put((rank, found, done.num, alone, shared, norm.running_mean.tolist()))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        queue.put((rank, traceback.format_exc(), None, None, None, None))


def fail_on_one(rank):
    if rank == 1:
        raise SsvidError("no disk")
    return dict.fromkeys(range(rank, 3, 2), 0)


def run_on(world, manifest, folder):
    # Forked: a process that starts afresh imports for several seconds. One thread each, or OpenMP hangs after a fork.
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (world, folder / f"store{world}", manifest, queue)
    processes = [context.Process(target=on_rank, args=(rank, *arguments), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    found = sorted((queue.get() for _ in processes), key=lambda item: item[0])
    for process in processes:
        process.join()
    assert [item for item in found if isinstance(item[1], str)] == []
    return found


def test_alone_the_rows_are_ones_own():
    rows = torch.arange(6).view(3, 2)
    assert rows_of_all(rows) is rows


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_any_number_of_processes_gives_the_same_bits(manifest, tmp_path, world):
    scores, features = evaluate(manifest)
    found = run_on(world, manifest, tmp_path)
    for rank, (others, vectors), _num, alone, shared, mean in found:
        assert others.logits_NVK.tobytes() == scores.logits_NVK.tobytes()
        assert others.ids == scores.ids and others.unreadable == scores.unreadable
        assert others.decoders == scores.decoders
        assert vectors.values_ND.tobytes() == features.values_ND.tobytes()
        assert vectors.unreadable == features.unreadable and vectors.ids == features.ids
        assert vectors.stage_columns == features.stage_columns
        assert alone == (0, 1)
        assert shared == ((rank, world), True, False, 40)
        assert mean == [0.0, 0.0]
    assert sorted(item[2] for item in found) == ([3, 4] if world == 2 else [2, 2, 3])
    assert np.isnan(scores.logits_NVK[-1]).all() and not np.isnan(scores.logits_NVK[:-1]).any()


def test_alone_nothing_is_shared():
    with over_ranks():
        assert ranks() == (0, 1)
        assert share_work(5, lambda mine: {i: i * i for i in mine}) == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
        assert where_all_agree(np.array([True, False])).tolist() == [True, False]
        assert from_first(lambda: 3) == 3


@pytest.mark.parametrize("results", [{0: 1}, {0: 1, 1: 2, 2: 3}])
def test_items_left_out_or_made_up_are_no_result(results):
    with pytest.raises(SsvidError, match=r"2 items were to be done once each"):
        share_work(2, lambda mine: results)


# ---- whole programs, each process started afresh


def launch(num, words, cache):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num}", "-m", "ssvid"]
    environment = os.environ | {"SSVID_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_probe_under_torchrun_gives_the_same_results(manifest, tmp_path, world):
    table = tmp_path / "table.csv"
    manifest.save(table)
    words = [
        "probe", "probe/folder", "data.name=manifest", f"data.root={manifest.root}", f"data.list={table}", "--device", "cpu",
        "--backbone", "random", "--backbone-name", "tiny3d", "backbone.options.width=2", "features.workers=0",
        "features.num_frames=4", "features.crop_px=24", "features.resize_px=28", "probe.knn_ks=[3]",
    ]  # fmt: skip
    printed = [launch(num, [*words, "--out", str(tmp_path / str(num))], tmp_path / f"cache{num}") for num in (1, world)]
    assert printed[0].count("chance") == printed[1].count("chance") == 1
    alone, shared = (read_results(tmp_path / str(num) / "results.json") for num in (1, world))
    assert [(row.metric, row.value, row.correct_N.tolist()) for row in shared] == [
        (row.metric, row.value, row.correct_N.tolist()) for row in alone
    ]


@pytest.mark.slow
def test_retrieval_under_torchrun_gives_the_same_results_and_pages(manifest, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    manifest.save(table)
    words = [
        "retrieve", "retrieve/folder", "data.name=manifest", f"data.root={manifest.root}", f"data.list={table}", "--device", "cpu",
        "--backbone", "random", "--backbone-name", "tiny3d", "backbone.options.width=2", "features.workers=0",
        "features.num_frames=4", "features.crop_px=24", "features.resize_px=28", "retrieval.ks=[1, 2]",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)  # no folder is named: all processes take the same new one
    printed = [launch(num, words, tmp_path / f"cache{num}") for num in (1, 3)]
    assert printed[0].count("chance") == printed[1].count("chance") == 1
    folders = [tmp_path / "runs" / name for name in ("retrieve-folder", "retrieve-folder-2")]
    assert sorted((tmp_path / "runs").iterdir()) == folders
    alone, shared = (read_results(folder / "results.json") for folder in folders)
    assert [(r.name, r.metric, r.value, r.correct_N.tolist()) for r in shared] == [
        (r.name, r.metric, r.value, r.correct_N.tolist()) for r in alone
    ]
    assert sorted(p.name for p in folders[0].iterdir()) == sorted(p.name for p in folders[1].iterdir())


@pytest.mark.slow
def test_fine_tuning_on_two_processes_sees_the_same_batches_and_scores_every_video_once(manifest, tmp_path):
    """Weights differ from those of one process (batch statistics of half a batch); what is scored does not."""
    table = tmp_path / "table.csv"
    manifest.save(table)
    words = [
        "finetune", "finetune/folder", "data.name=manifest", f"data.root={manifest.root}", f"data.list={table}",
        "--backbone", "random", "--backbone-name", "tiny3d", "backbone.options.width=2", "loader.workers_per_device=0",
        "finetune.num_frames=4", "finetune.crop_px=24", "finetune.resize_px=28", "optim.epochs=2",
        "finetune.batch_size=6", "finetune.every_epochs=1", "optim.warmup_epochs=0", "finetune.refit=true", "trainer.accelerator=cpu",
        "baselines.single_frame=false",
    ]  # fmt: skip
    run = [*words, "trainer.devices=2", "--run-dir", str(tmp_path / "two")]
    launch(2, run, tmp_path / "cache")
    rows = read_results(tmp_path / "two" / "results.json")
    assert list(dict.fromkeys(row.name for row in rows)) == ["random", "shuffled frames", "histograms"]
    assert len(rows[0].ids) == 9 == len(set(rows[0].ids)) and rows[-1].ids == rows[0].ids
    assert rows[0].context["training"]["processes"] == 2
    assert len(rows[0].context["head"]["curve"]) == 2
    meta = read_checkpoint(tmp_path / "two" / "random" / "refit" / "checkpoints" / "last.ckpt").meta
    assert meta["global_step"] == 3 * rows[0].context["head"]["chosen"]["epoch"]
    (tmp_path / "two" / "results.json").unlink()
    (tmp_path / "two" / "random" / "results.json").unlink()
    launch(2, [*run, "--resume"], tmp_path / "cache")
    again = read_results(tmp_path / "two" / "results.json")
    trained = [[row.context.get("trained_sha256", row.value) for row in found] for found in (again, rows)]
    assert trained[0] == trained[1]
