"""Fine-tuning as a whole, on tiny encoded videos: what is trained, what is chosen, what is scored, what comes back."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.classifiers.scoring import VideoScores
from ssvid.data.config import LoaderConfig
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals.contract import Tools
from ssvid.evals.finetune import training as finetuning
from ssvid.evals.finetune.training import Finetune
from ssvid.exports import load_backbone
from ssvid.results.rows import read_results, write_results
from ssvid.train.config import FinetuneOptimConfig, TrainerConfig
from ssvid.weights.checkpoints import read_checkpoint, weights_sha256
from tests.frozen import ask, labeled

QUICK = FinetuneProtocol(
    num_frames=4, crop_px=16, resize_px=20, dropout=0.0, crop="place", batch_size=7,
    optim=FinetuneOptimConfig("adamw", base_lr=1.0, epochs=3, weight_decay=0.0), holdout_fraction=0.2, num_clips=2,
)  # fmt: skip


def epochs(num: int) -> FinetuneOptimConfig:
    return replace(QUICK.optim, epochs=num)


def setup_of(**trainer) -> Tools:
    config = TrainerConfig("cpu", "1", precision="32", threads=1, pictures=False, **trainer)
    return Tools(loader=LoaderConfig(workers_per_device=0), trainer=config, recipe={"kind": "finetune"})


def network():
    return initialize_backbone("tiny3d", {"width": 2}, seed=0)


def tune(manifest: Manifest, folder, protocol=QUICK, *, setup=None, backbone=None, resume=False):
    tools = replace(setup or setup_of(), folder=folder, resume=resume)
    return ask("finetune", backbone or network(), labeled(manifest), protocol, tools=tools)


@pytest.fixture(scope="module")
def tuned(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(manifest, folder, setup=setup_of(save_every_steps=1))


def test_a_network_learns_classes_that_differ_in_color(manifest, tmp_path):

    rows = tune(manifest, tmp_path, replace(QUICK, optim=epochs(15)))
    values = {row.metric: row.value for row in rows}
    assert values["finetune_top1"] == 1.0
    assert set(values) == {"finetune_top1", "finetune_clip_top1"}  # 3 classes have no top-5
    assert rows[0].chance == pytest.approx(1 / 3)
    assert rows[0].context["predictions"] == [path.split("/")[1] for path in rows[0].ids]


def test_a_number_tells_all_that_it_depends_on(tuned, manifest, tmp_path):
    _folder, rows = tuned
    context = json.loads(json.dumps(dict(rows[0].context), allow_nan=False))
    assert context["finetune_protocol"]["stage"] == "stage4"
    assert context["finetune_protocol"]["epochs"] == 3
    assert context["weights_sha256"] == weights_sha256(network().state_dict())
    assert context["training"]["steps_per_epoch"] == 2  # 14 of 18 are left to train on
    assert context["head"]["num_heldout"] == 4
    assert [point["epoch"] for point in context["head"]["curve"]] == [1, 2, 3]
    assert context["data"]["test"]["num_videos"] == 9
    assert context["leak"]["same_content_in_train_and_test"] == 0
    again = read_results(write_results(tmp_path / "results.json", rows))
    assert [row.value for row in again] == [row.value for row in rows]
    for row, read in zip(rows, again, strict=True):
        assert (row.correct_N == read.correct_N).all() and row.correct_N.dtype == read.correct_N.dtype
        assert row.value == pytest.approx(row.correct_N.mean())


def test_the_chosen_epoch_is_the_best_on_held_out_train(tuned):
    folder, rows = tuned
    head = rows[0].context["head"]
    best = max(head["curve"], key=lambda point: (point["top1"], -point["loss"]))
    assert head["chosen"] == {"epoch": best["epoch"], "on": "held-out part of train"}
    assert read_checkpoint(folder / "checkpoints" / "best.ckpt").meta["global_step"] == 2 * best["epoch"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line["heldout/top1"] for line in lines if "heldout/top1" in line]
    assert logged == [point["top1"] for point in head["curve"]]


def test_a_fine_tuned_run_is_a_backbone_again(tuned):
    folder, _rows = tuned
    backbone = load_backbone(folder / "checkpoints" / "best.ckpt")
    assert backbone.provenance["stage"] == "stage4"
    assert len(backbone.provenance["content_ids"]) == 14
    assert not torch.equal(backbone.stage1[0].weight, network().stage1[0].weight)


def test_the_test_split_is_read_once_and_after_all_choices(manifest, tmp_path, monkeypatch):
    read, plain = [], finetuning.score_videos

    def spy(backbone, task, manifest, rows, reading, **more):
        read.append({row.split for row in rows} | {len(rows)})
        return plain(backbone, task, manifest, rows, reading, **more)

    drawn = []
    monkeypatch.setattr(finetuning, "score_videos", spy)
    monkeypatch.setattr(
        finetuning.ClipDataModule, "on_before_batch_transfer", lambda self, batch, _: drawn.append(batch) or batch
    )
    tune(manifest, tmp_path)
    assert read == [{"train", 4}] * 3 + [{"test", 9}]
    assert len(drawn) == 6 and {len(batch["label"]) for batch in drawn} == {7}


def test_labels_belong_to_the_videos_that_were_read(manifest, tmp_path, monkeypatch):
    """The patch of a clip has the color of its class, whatever order the epoch has."""
    seen = []
    monkeypatch.setattr(
        finetuning.ClipDataModule, "on_before_batch_transfer", lambda self, batch, _: seen.append(batch) or batch
    )

    tune(manifest, tmp_path, replace(QUICK, optim=epochs(1), holdout_fraction=0, crop="center", num_clips=1))
    channel = {0: 2, 1: 1, 2: 0}  # blue, green, red
    for batch in seen:
        means = batch["clips"].float().amax(dim=(1, 3, 4))
        assert means.argmax(dim=1).tolist() == [channel[int(label)] for label in batch["label"]]


# ---- frozen


def test_a_frozen_backbone_keeps_every_bit_and_its_head_learns(manifest, tmp_path):

    backbone = network()
    backbone(torch.rand(2, 3, 4, 16, 16))  # batch statistics that are not those of nothing
    before = copy.deepcopy(backbone.state_dict())
    found = {}
    plain = finetuning.fit

    def spy(*args, **more):
        found["fitted"] = plain(*args, **more)
        return found["fitted"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "fit", spy)
        rows = tune(
            manifest, tmp_path, replace(QUICK, frozen=True, head="attentive", optim=epochs(2)), backbone=backbone
        )
    after = found["fitted"].backbone.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert {row.metric for row in rows} == {"attentive_top1", "attentive_clip_top1"}
    head = found["fitted"].task.head
    fresh = finetuning.Classification(
        found["fitted"].task.protocol, backbone.info, classes=found["fitted"].task.classes, chance=1 / 3, seed=0
    ).head
    assert not torch.equal(head.classifier.weight, fresh.classifier.weight)
    assert rows[0].context["training"]["trained_parameters"] == sum(q.numel() for q in head.parameters())


def test_a_frozen_linear_head_is_named_so(manifest, tmp_path):

    rows = tune(
        manifest, tmp_path, replace(QUICK, frozen=True, head_norm="l2_batch", optim=epochs(1), holdout_fraction=0)
    )
    assert {row.metric for row in rows} == {"linear_top1", "linear_clip_top1"}
    assert rows[0].context["head"]["chosen"] == {"epoch": 1.0, "on": "nothing: the last epoch"}


# ---- heads over frames


@pytest.fixture(scope="module")
def of_frames():
    """A network whose last map has a cell for each frame."""
    return initialize_backbone("tiny3d", {"width": 2, "stride_time": 1}, seed=0)


OF_FRAMES = replace(QUICK, optim=epochs(4))


@pytest.mark.parametrize(("kind", "frozen"), [("attention", False), ("lstm", True)])
def test_a_head_over_frames_learns_alone_and_with_its_network(manifest, tmp_path, of_frames, kind, frozen):
    before = copy.deepcopy(of_frames.state_dict())
    protocol = replace(OF_FRAMES, head=kind, frozen=frozen)
    rows = tune(manifest, tmp_path, protocol, backbone=of_frames)
    name = f"{kind}_probe" if frozen else "finetune"
    assert [row.metric for row in rows] == [f"{name}_top1", f"{name}_clip_top1"]
    losses = [point["loss"] for point in rows[0].context["head"]["curve"]]
    assert losses[-1] < losses[0]
    tuned_network = load_backbone(tmp_path / "checkpoints" / "best.ckpt")
    same = [torch.equal(value, before[key]) for key, value in tuned_network.state_dict().items()]
    assert all(same) if frozen else not all(same)
    again = tune(manifest, tmp_path, protocol, backbone=of_frames, resume=True)
    assert again[0].context["trained_sha256"] == rows[0].context["trained_sha256"]
    assert [row.value for row in again] == [row.value for row in rows]


def test_a_head_is_asked_whether_it_fits_the_network_before_anything_is_read(of_frames):
    protocol = FinetuneProtocol(head="average")
    alone = initialize_backbone("caffenet", {}, seed=0)
    resolved = Finetune().prepare(None, protocol, alone, setup_of())[1]
    assert (resolved.head, resolved.stage) == ("average", "conv5")
    with pytest.raises(RecipeError, match="lets frames see each other"):
        Finetune().prepare(None, protocol, of_frames, setup_of())


# ---- the same again


@pytest.mark.parametrize(("every_steps", "left_at"), [(1, 3), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_an_interrupted_run_resumes_bit_for_bit(tuned, manifest, tmp_path, monkeypatch, every_steps, left_at):
    _folder, rows = tuned
    plain, calls = finetuning.score_videos, []

    def dies(*args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return plain(*args, **more)

    monkeypatch.setattr(finetuning, "score_videos", dies)
    setup = setup_of(save_every_steps=every_steps)
    with pytest.raises(RuntimeError, match="power cut"):
        tune(manifest, tmp_path, setup=setup)
    meta = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt").meta
    assert meta["global_step"] == left_at  # the end of epoch 2, step 4, is saved only with its score
    again = tune(manifest, tmp_path, setup=setup, resume=True)
    assert again[0].context["trained_sha256"] == rows[0].context["trained_sha256"]
    assert again[0].context["head"] == rows[0].context["head"]
    assert [row.value for row in again] == [row.value for row in rows]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "heldout/top1" in line] == [1, 3, 5]


def test_a_finished_run_resumed_gives_the_same_rows(tuned, manifest):
    folder, rows = tuned
    again = tune(manifest, folder, setup=setup_of(save_every_steps=1), resume=True)
    assert again[0].context["trained_sha256"] == rows[0].context["trained_sha256"]
    assert [row.value for row in again] == [row.value for row in rows]


@pytest.mark.slow
def test_refitting_takes_all_of_train_for_the_chosen_epochs(manifest, tmp_path):

    rows = tune(manifest, tmp_path, replace(QUICK, optim=epochs(2), batch_size=6, refit=True))
    chosen = rows[0].context["head"]["chosen"]["epoch"]
    assert rows[0].context["training"]["num_videos"] == 18
    meta = read_checkpoint(tmp_path / "refit" / "checkpoints" / "last.ckpt").meta
    assert meta["global_step"] == chosen * 3 and meta["data"]["num_videos"] == 18


# ---- videos that cannot be read


def test_a_file_that_changed_is_told_before_an_epoch(manifest, tmp_path):
    changed = [replace(row, content_id="0" * 16) if row.split == "test" else row for row in manifest.rows]
    with pytest.raises(DataError, match="9 of 27 files are not those of the manifest"):
        tune(Manifest(manifest.root, tuple(changed)), tmp_path)
    assert not any(tmp_path.iterdir())


def test_unreadable_test_videos_are_wrong_and_listed_and_training_goes_on(manifest, tmp_path):
    rows = list(manifest.rows)
    rows.append(VideoRow("gone.mp4", 14, 25.0, 36, 44, label="red", split="test", decoders_ok=("pyav",)))
    rows.append(VideoRow("cut.mp4", 0, 0.0, 0, 0, label="blue", split="train", status="unreadable: cut short"))
    setup = replace(setup_of(), loader=LoaderConfig(workers_per_device=0, max_unreadable_fraction=0.2))

    found = tune(Manifest(manifest.root, tuple(rows)), tmp_path, replace(QUICK, optim=epochs(1)), setup=setup)
    top1 = found[0]
    assert len(top1.ids) == 10 and not top1.correct_N[top1.ids.index("gone.mp4")]
    assert top1.context["predictions"][top1.ids.index("gone.mp4")] == ""
    assert [name for name, _ in top1.context["data"]["test"]["unreadable"]] == ["gone.mp4"]
    assert any("unreadable test videos, counted as wrong: 1 (gone.mp4)" in note for note in top1.context["notes"])
    assert any("unreadable training videos, left out: 1 (cut.mp4)" in note for note in top1.context["notes"])


# ---- scores


def scores(logits, labels) -> VideoScores:
    values = np.array(logits, dtype=np.float32)
    return VideoScores(values, tuple(map(str, range(len(labels)))), tuple(labels), ("a", "b", "c"))


def test_averaging_over_views_by_hand():
    # One view is sure of b, two are mildly for a: logits say b, softmax says a.
    one = scores([[[0, 4.5, 0], [2, 0, 0], [2, 0, 0]]], ["a"])
    assert one.predictions("logits") == ("b",)
    assert one.predictions("softmax") == ("a",)
    assert one.right_views().tolist() == pytest.approx([2 / 3])
    assert one.of_videos("logits")[0].tolist() == pytest.approx([4 / 3, 1.5, 0])


def test_loss_is_torchs_cross_entropy_over_views():
    logits = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    found = scores(logits, ["a", "c", "b", "c"])
    target = torch.tensor([0, 2, 1, 2]).repeat_interleave(2)
    assert found.loss() == pytest.approx(
        float(torch.nn.functional.cross_entropy(torch.tensor(logits).flatten(0, 1), target))
    )


def test_an_unreadable_video_is_wrong_in_every_way():
    values = np.full((2, 1, 3), np.nan)
    values[0] = [[3.0, 2.0, 1.0]]
    found = scores(values, ["b", "a"])
    assert found.predictions("softmax") == ("a", "")
    assert found.correct("softmax").tolist() == [False, False]
    assert found.correct_in_top(2, "softmax").tolist() == [True, False]
    assert found.right_views().tolist() == [0.0, 0.0]
