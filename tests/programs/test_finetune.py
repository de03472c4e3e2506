"""``finetune`` as a program: where it starts from, the rows side by side, what is refused, what a resumed run does."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.cli import main
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError, RunFolderError
from ssvid.evals.finetune import training as training
from ssvid.evals.finetune.training import Finetune
from ssvid.evals.measuring import better_random_first
from ssvid.programs import finetuning
from ssvid.recipe import building as starting
from ssvid.recipe.building import start_backbone
from ssvid.recipe.load import load_recipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.rows import ResultRow, read_results
from ssvid.video import content_id
from ssvid.weights.checkpoints import read_checkpoint, weights_sha256
from ssvid.weights.loading import load_backbone

RECIPE = {
    "kind": "finetune",
    "seed": 3,
    "data": {"name": "manifest", "root": "???"},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "finetune": {
        "num_frames": 4, "crop_px": 16, "resize_px": 20, "batch_size": 3, "holdout_fraction": 0.34, "num_clips": 2,
    },
    "optim": {"name": "adamw", "epochs": 2, "base_lr": 0.5},
    "baselines": {"histograms": False, "single_frame": False, "shuffled_frames": False},
    "loader": {"workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def labeled(video_folder, tmp_path_factory):
    """Ten labeled videos with their table."""
    root = tmp_path_factory.mktemp("finetune") / "videos"
    root.mkdir()
    rows = []
    for i in range(10):
        path = root / f"{i}.mp4"
        shutil.copy(video_folder / f"{i:02d}.mp4", path)
        frames = 40 + i % 3
        row = VideoRow(
            path.name, frames, 25.0, 48, 64, label="ab"[i % 2], split="train" if i < 6 else "test",
            decoders_ok=("pyav",), content_id=content_id(path),
        )  # fmt: skip
        rows.append(row)
    Manifest(root, tuple(rows)).save(root / "manifest.csv")
    return root


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Weights of a network, as another program would leave them."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(initialize_backbone("tiny3d", {"width": 2}, seed=77).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def nothing_trained_before(tmp_path, monkeypatch):
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))


def run(labeled, *overrides, **more):
    return ssvid.finetune(RECIPE, f"data.root={labeled}", *overrides, show_progress=False, **more)


@pytest.fixture(scope="module")
def heads():
    """The heads of all networks of ``outcome`` as they were before training."""
    return []


@pytest.fixture(scope="module")
def outcome(labeled, export, heads):
    plain = training._train

    def spy(module, *args, **more):
        heads.append([q.clone() for q in module.task.head.parameters()])
        return plain(module, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_train", spy)
        return run(labeled, backbone=export, run_dir=labeled.parent / "run")


def test_the_random_network_stands_beside_with_the_same_settings(outcome, export):
    assert [row.name for row in outcome.rows] == ["pretrained"] * 2 + ["random"] * 2
    first = {row.name: row.context for row in outcome.rows}
    assert first["pretrained"]["finetune_protocol"] == first["random"]["finetune_protocol"]
    assert first["pretrained"]["seed"] == first["random"]["seed"] == 3
    assert first["random"]["weights_sha256"] == weights_sha256(
        initialize_backbone("tiny3d", {"width": 2}, seed=3).state_dict()
    )
    assert first["pretrained"]["weights_sha256"] == weights_sha256(torch.load(export))
    assert any("weights.pth; whether that has seen test videos is not known" in n for n in first["pretrained"]["notes"])
    assert json.loads(json.dumps(outcome.as_dict()))["run_dir"] == str(outcome.run_dir)
    assert "finetune_top1" in str(outcome)


def test_the_folder_holds_the_whole_run(outcome, labeled):
    assert [row.value for row in read_results(outcome.run_dir / "results.json")] == [r.value for r in outcome.rows]
    assert ssvid.diff(outcome.run_dir, outcome.run_dir).is_same
    for name in ("recipe.yaml", "recipe.resolved.yaml", "env.json", "manifest.csv", "starts.json"):
        assert (outcome.run_dir / name).is_file()
    for name in ("pretrained", "random"):
        meta = read_checkpoint(outcome.run_dir / name / "checkpoints" / "best.ckpt").meta
        assert meta["recipe"]["kind"] == "finetune" and len(meta["data"]["content_ids"]) == 4
        assert load_backbone(outcome.run_dir / name).info.name == "tiny3d"
    init = read_checkpoint(outcome.run_dir / "pretrained" / "checkpoints" / "last.ckpt").meta["init"]
    assert init["from"] == "file weights.pth" and init["unknown_videos"]


def test_which_of_two_networks_of_a_file_is_said_with_which(labeled, export, tmp_path, capsys):
    own = torch.load(export)
    other = initialize_backbone("tiny3d", {"width": 2}, seed=78).state_dict()
    both = {f"encoder_q.{k}": v for k, v in own.items()} | {f"encoder_k.{k}": v for k, v in other.items()}
    torch.save({"state_dict": both}, tmp_path / "moco.pth")
    (tmp_path / "r.yaml").write_text(json.dumps(RECIPE))
    words = [
        "finetune", str(tmp_path / "r.yaml"), f"data.root={labeled}", "optim.epochs=1", "finetune.holdout_fraction=0",
        "--backbone", str(tmp_path / "moco.pth"), "--no-random", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 2
    assert "--which encoder_q or --which encoder_k" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--which", "encoder_x"]) == 2
    assert "'encoder_x' names none of the networks" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--which", "encoder_k"]) == 0
    found = {row.context["weights_sha256"] for row in read_results(tmp_path / "run" / "results.json")}
    assert found == {weights_sha256(other)}
    assert json.loads((tmp_path / "run" / "results.json").read_text())["arguments"]["which"] == "encoder_k"


def test_both_networks_start_from_the_same_head(outcome, heads):
    assert len(heads) == 2
    assert all(torch.equal(a, b) for a, b in zip(*heads, strict=True))


def test_the_baselines_stand_beside_and_are_trained_once(labeled, export, tmp_path, monkeypatch, capsys):
    trained = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **more: trained.append(1) or fit(*args, **more))
    wanted = [
        "optim.epochs=1",
        "baselines.histograms=true",
        "baselines.single_frame=true",
        "baselines.shuffled_frames=true",
    ]
    first = run(labeled, *wanted, backbone=export, run_dir=tmp_path / "first")
    assert len(trained) == 4
    top1 = {row.name: row for row in first.rows if row.metric == "finetune_top1"}
    assert list(top1) == ["pretrained", "random", "single frame", "shuffled frames", "histograms"]
    assert {row.ids for row in top1.values()} == {top1["histograms"].ids} and len(top1["histograms"].ids) == 4
    frames = {name: row.context["finetune_protocol"]["frames"] for name, row in top1.items() if name != "histograms"}
    assert frames == {
        "pretrained": "video", "random": "video", "single frame": "single_frame", "shuffled frames": "shuffled",
    }  # fmt: skip
    start = top1["pretrained"].context["weights_sha256"]
    assert top1["single frame"].context["weights_sha256"] == start != top1["random"].context["weights_sha256"]
    assert len({row.context["trained_sha256"] for name, row in top1.items() if name != "histograms"}) == 4
    assert len({row.context["protocol"]["sha256"] for row in first.rows}) == 1
    read_checkpoint(tmp_path / "first" / "single-frame" / "checkpoints" / "best.ckpt")

    other = tmp_path / "other.pth"
    torch.save(initialize_backbone("tiny3d", {"width": 2}, seed=78).state_dict(), other)
    trained.clear()
    second = run(labeled, *wanted, backbone=other, run_dir=tmp_path / "second")
    assert len(trained) == 3, "the random network was trained with these settings before"
    pick = lambda found: [(r.metric, r.value, r.context["notes"]) for r in found.rows if r.name == "random"]  # noqa: E731
    assert pick(first) == pick(second) and len(pick(first)) == 2

    (damaged,) = (p for p in (tmp_path / "cache" / "finetuned").rglob("*.json") if '"name": "random"' in p.read_text())
    damaged.write_text("{")
    trained.clear()
    with pytest.warns(UserWarning, match="what was trained before is not used"):
        run(labeled, "optim.epochs=1", backbone="random", run_dir=tmp_path / "third")
    assert trained, "and is trained again"
    again = ssvid.finetune(from_results=first.path, run_dir=tmp_path / "fourth", show_progress=False)
    assert len(trained) == 1 + 4, "a number is repeated by training, not by remembering"
    assert again.repeated.startswith(f"repeated: all {len(first.rows)} numbers")


def test_an_interrupted_run_takes_what_is_done_and_goes_on(outcome, labeled, export, tmp_path, monkeypatch):
    folder, plain, calls = tmp_path / "run", training.score_videos, []

    def dies(*args, **more):
        calls.append(1)
        if len(calls) == 5:  # 2 epochs and the test of the first network, and an epoch of the second
            raise KeyboardInterrupt
        return plain(*args, **more)

    monkeypatch.setattr(training, "score_videos", dies)
    with pytest.raises(KeyboardInterrupt, match=r"ssvid finetune .*run --backbone .*weights.pth --resume"):
        run(labeled, backbone=export, run_dir=folder)
    monkeypatch.setattr(training, "score_videos", plain)
    trained = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **more: trained.append(1) or fit(*args, **more))
    again = run(labeled, backbone=export, run_dir=folder, resume=True)
    assert len(trained) == 1
    assert [row.value for row in again.rows] == [row.value for row in outcome.rows]
    assert [row.context["trained_sha256"] for row in again.rows] == [r.context["trained_sha256"] for r in outcome.rows]


def test_what_will_be_done_is_told_first(labeled, export, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finetuning.Trainings, "rows", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ssvid.finetune(
            RECIPE, f"data.root={labeled}", "optim.epochs=1", "finetune.layer_decay=0.5", backbone=export,
            random=False, run_dir=tmp_path / "run",
        )  # fmt: skip
    told = capsys.readouterr().err
    assert "4 videos to train on, 2 held out of train" in told
    assert "4 test videos x 2 clips x 1 crops = 8 views, averaging softmax" in told
    assert "lr 0.00585938 = base_lr 0.5 x 3 / 256: head 0.00586, stage4 0.00293, stage3 0.00146" in told


def test_a_folder_is_neither_overwritten_nor_continued_from_something_else(outcome, labeled, export):
    with pytest.raises(RunFolderError, match="a run never overwrites another"):
        run(labeled, backbone=export, run_dir=outcome.run_dir)
    with pytest.raises(RecipeError, match=r"optim.epochs: 2 -> 9"):
        run(labeled, "optim.epochs=9", backbone=export, run_dir=outcome.run_dir, resume=True)
    with pytest.raises(RunFolderError, match="started from other weights of pretrained"):
        run(labeled, backbone="random", run_dir=outcome.run_dir, resume=True)
    with pytest.raises(RunFolderError, match="holds other things, and no run to go on with"):
        run(labeled, backbone=export, run_dir=labeled, resume=True)


def test_a_fine_tuning_whose_videos_moved_goes_on_where_they_are_now(outcome, labeled, export, tmp_path):
    shutil.copytree(outcome.run_dir, tmp_path / "run")
    moved = shutil.copytree(labeled, tmp_path / "moved")
    again = run(moved, "data.index_workers=1", backbone=export, run_dir=tmp_path / "run", resume=True)
    assert [row.value for row in again.rows] == [row.value for row in outcome.rows]
    next(moved.rglob("*.mp4")).unlink()
    with pytest.raises(DataError, match=r"Set data.root to the folder that holds them\.$"):
        run(moved, backbone=export, run_dir=tmp_path / "run", resume=True)


def test_a_wrong_option_is_told_before_a_video_is_read(labeled, export, tmp_path, monkeypatch):
    def listing(*args, **options):
        raise AssertionError("the videos were looked at")

    monkeypatch.setattr("ssvid.programs.evaluate.load_manifest", listing)
    with pytest.raises(RecipeError, match=r"optim.name \('rmsprop'\) must be one of sgd, adam, adamw"):
        run(labeled, "optim.name=rmsprop", backbone=export, run_dir=tmp_path / "run")


def test_mistakes_are_told_before_a_folder_is_made(labeled, export, tmp_path):
    folder = tmp_path / "run"
    for changes, error, text in (
        (["optim.name=rmsprop"], RecipeError, "optim.name"),
        (["trainer.accelerator=gpu"], RecipeError, "needs a CUDA device"),
        (["loader.global_batch=8"], RecipeError, "loader.global_batch"),
        (["finetune.batch_size=64"], DataError, "needs as many readable training videos, and 4 are left"),
        (["finetune.num_frames=60"], DataError, "the longest training video has 42"),
        (["loader.decoder=nope"], Exception, "nope"),
    ):
        if torch.cuda.is_available() and "accelerator" in changes[0]:
            continue
        with pytest.raises(error, match=text):
            run(labeled, *changes, backbone=export, run_dir=folder)
        assert not folder.exists(), changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"split": ""}, "videos of the splits train and test"), ({"label": ""}, "has a label, and a probe needs labels")],
)
def test_labels_and_splits_are_needed(labeled, tmp_path, changes, text):
    table = Manifest.load(labeled / "manifest.csv")
    table.with_rows(replace(row, **changes) for row in table.rows).save(tmp_path / "table.csv")
    with pytest.raises(DataError, match=text):
        run(labeled, f"data.list={tmp_path / 'table.csv'}", backbone="random", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- where it starts from


def config_of(**changes):
    return load_recipe(RECIPE | changes, ["data.root=x"]).recipe


@pytest.mark.parametrize(
    ("text", "name", "weights"),
    [
        ("torchvision:r3d_18", "r3d_18", "torchvision:DEFAULT"),
        ("torchvision:r3d_18.KINETICS400_V1", "r3d_18", "torchvision:KINETICS400_V1"),
        ("torchvision:IMAGENET1K_V1", None, "torchvision:IMAGENET1K_V1"),
        ("torchvision:resnet18", "resnet18", "torchvision:DEFAULT"),
    ],
)
def test_torchvisions_weights_may_name_their_network(text, name, weights):
    assert starting._named_by(text) == name
    assert starting._weights_of(text, name or "resnet18") == weights


def test_weights_that_do_not_name_their_network_ask_for_it(export):
    with pytest.raises(RecipeError, match=r"--backbone-name r3d_18, say"):
        start_backbone(export, config_of(backbone={}))


def test_a_run_of_ours_is_recorded_as_the_start(outcome):
    network = start_backbone(outcome.run_dir / "pretrained", config_of(backbone={}))
    assert network.provenance["start"]["from"] == "run"
    assert network.provenance["start"]["counts"]["missing"] == 0
    assert network.provenance["stage"] == "stage4" and len(network.provenance["content_ids"]) == 4
    assert start_backbone("random", config_of()).provenance["random"] == {"seed": 3}


# ---- seeds, repeats


@pytest.mark.slow
def test_several_seeds_are_summarized_and_each_has_its_folder(labeled, export, tmp_path):
    found = run(labeled, "seeds=[1, 2]", "optim.epochs=1", backbone=export, random=False, run_dir=tmp_path / "run")
    assert [(row.context["seed"], row.metric) for row in found.rows] == [
        (seed, f"finetune_{what}") for seed in (1, 2) for what in ("top1", "clip_top1")
    ]
    (top1,) = [s for s in found.summaries if s.metric == "finetune_top1"]
    assert top1.value == pytest.approx(sum(r.value for r in found.rows if r.metric == "finetune_top1") / 2)
    for seed in (1, 2):
        assert (tmp_path / "run" / f"seed{seed}" / "pretrained" / "checkpoints" / "best.ckpt").is_file()
    again = run(
        labeled,
        "seeds=[1, 2]",
        "optim.epochs=1",
        backbone=export,
        random=False,
        run_dir=tmp_path / "run",
        resume=True,
    )
    assert [row.value for row in again.rows] == [row.value for row in found.rows]


@pytest.mark.slow
def test_a_result_is_repeated_to_the_last_digit(outcome, labeled, export, tmp_path):
    again = ssvid.finetune(from_results=outcome.path, run_dir=tmp_path / "again", show_progress=False)
    assert again.repeated.startswith("repeated: all 4 numbers")
    assert [r.context["trained_sha256"] for r in again.rows] == [r.context["trained_sha256"] for r in outcome.rows]
    other = tmp_path / "other.pth"
    torch.save(initialize_backbone("tiny3d", {"width": 2}, seed=78).state_dict(), other)
    with pytest.raises(DataError, match="was measured with pretrained weights of the hash"):
        ssvid.finetune(from_results=outcome.path, backbone=other, run_dir=tmp_path / "no", show_progress=False)
    assert not (tmp_path / "no").exists()


# ---- two forms of a frozen random network


@pytest.mark.slow
def test_a_frozen_random_network_is_scored_in_both_forms(labeled, tmp_path):
    found = run(labeled, "finetune.frozen=true", "optim.epochs=1", backbone="random", run_dir=tmp_path / "run")
    names = list(dict.fromkeys(row.name for row in found.rows))
    assert names[0] == "random" and names[1] in ("random, initial", "random, calibrated")
    choice = found.rows[0].context["better_form"]
    assert choice["heldout_top1"][choice["form"]] == max(choice["heldout_top1"].values())
    states = [
        read_checkpoint(tmp_path / "run" / f"random-{form}" / "checkpoints" / "last.ckpt").backbone_state
        for form in ("initial", "calibrated")
    ]
    assert torch.equal(states[0]["stage1.0.weight"], states[1]["stage1.0.weight"])
    assert not torch.equal(states[0]["stage1.1.running_mean"], states[1]["stage1.1.running_mean"])
    assert (states[0]["stage1.1.running_mean"] == 0).all()


def test_the_better_form_is_chosen_on_held_out_train():
    def rows(name, heldout):
        context = {"head": {"heldout_top1": heldout}}
        return [ResultRow(name, "linear_top1", 0.5, (0, 1), 0.5, torch.ones(1).numpy(), ("a",), context)]

    forms = {"random, initial": 0.2, "random, calibrated": 0.3}
    found = better_random_first(
        {name: rows(name, heldout) for name, heldout in {"pretrained": 0.1, **forms}.items()},
        {name: Finetune().heldout(rows(name, heldout)) for name, heldout in forms.items()},
        Finetune.heldout_name,
    )
    assert [row.name for row in found] == ["pretrained", "random", "random, initial"]
    assert found[1].context["better_form"]["form"] == "calibrated"


def test_a_head_over_frames_on_a_network_without_frames_ends_with_2_and_writes_nothing(labeled, tmp_path, capfd):
    recipe, run_dir = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(to_yaml({**RECIPE, "finetune": {**RECIPE["finetune"], "head": "lstm"}}))
    asked = ["finetune", str(recipe), f"data.root={labeled}", "--backbone", "random", "--run-dir", str(run_dir)]
    assert main(asked) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "ssvid: finetune.head ('lstm') needs a map for each frame, and backbone tiny3d has at stage4 one for" in told
    assert told.count("finetune.head (") == 1 and "Traceback" not in told
    assert not (run_dir / "results.json").exists() and not (run_dir / "checkpoints").exists()
