"""Evaluations as programs: folds, seeds and baselines in one command, leaks between folds, and a number that repeats."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.cli import main
from ssvid.data.collection import load_manifest
from ssvid.data.config import DataConfig
from ssvid.data.index.scan_cache import cache_folder
from ssvid.errors import DataError, RecipeError
from ssvid.programs.outcome import Outcome
from ssvid.programs.runs import config_of, plan_runs, refuse_repetition
from ssvid.recipe.load import load_recipe
from ssvid.results.rows import ResultRow, read_results
from ssvid.video import write_video
from ssvid.weights.checkpoints import weights_sha256
from tests.weights.test_checkpoints import content_of

CLASSES = {"Archery": (220, 40, 30), "Biking": (40, 210, 50), "HandstandPushups": (30, 40, 220)}
QUICK = {
    "features": {"num_frames": 4, "stride_frames": 1, "num_clips": 1, "crop_px": 16, "resize_px": 18, "workers": 0},
    "probe": {
        "regularization": [0.1, 1.0],
        "num_holdouts": 2,
        "holdout_fraction": 0.5,
        "knn_ks": [3],
    },
}


def recipe(root: Path, **more):
    own = {"kind": "probe", "data": {"name": "ucf101", "root": str(root), "index_workers": 1}, **QUICK}
    return {**own, **more}


def video(path: Path, color, seed: int) -> None:
    rng = np.random.default_rng([seed, *color])
    ground = rng.integers(60, 120, (20, 24, 3), dtype=np.uint8)
    frames = []
    for t in range(6):
        frame = ground.copy()
        frame[4:14, 2 + t : 12 + t] = color
        frames.append(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, fps=25)


@pytest.fixture(scope="module")
def ucf(tmp_path_factory) -> Path:
    """UCF101 in small: 3 classes of 3 groups of 2 clips; fold k tests group k."""
    root = tmp_path_factory.mktemp("UCF-101")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, 1)))
    names = {}
    for label, color in CLASSES.items():
        spelled = label.replace("HandstandPushups", "HandStandPushups")
        for group in (1, 2, 3):
            for clip in (1, 2):
                name = f"{label}/v_{spelled}_g{group:02d}_c{clip:02d}.avi"
                video(root / name, color, 10 * group + clip)
                names[name] = (group, list(CLASSES).index(label) + 1)
    for fold in (1, 2, 3):
        train = [f"{name} {number}\n" for name, (group, number) in names.items() if group != fold]
        test = [f"{name}\n" for name, (group, _) in names.items() if group == fold]
        (lists / f"trainlist0{fold}.txt").write_text("".join(train))
        (lists / f"testlist0{fold}.txt").write_text("".join(test))
    return root


def checkpoint(folder: Path, seed: int, contents=()) -> Path:
    content = content_of(initialize_backbone("tiny3d", {"width": 2}, seed=seed))
    content["ssvid"]["data"]["content_ids"] = list(contents)
    content["ssvid"]["seed"] = seed
    path = folder / f"seed{seed}" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def evaluated(ucf, tmp_path_factory):
    """Two backbones on two folds; the first has seen fold 1's training videos."""
    folder = tmp_path_factory.mktemp("evaluated")
    fold1 = load_manifest(DataConfig(name="ucf101", root=str(ucf), fold=1, index_workers=1))
    seen = [row.content_id for row in fold1.rows if row.split == "train"]
    weights = [checkpoint(folder, 0, seen), checkpoint(folder, 1)]
    few = {"random": False, "single_frame": False, "shuffled_frames": False}  # to be quick
    outcome = ssvid.probe(
        recipe(ucf, folds=[1, 2], baselines=few),
        backbone=weights,
        out=folder / "out",
        device="cpu",
        show_progress=False,
    )
    return outcome, weights, folder


def test_every_baseline_stands_beside(evaluated, ucf, tmp_path):
    weights = evaluated[1][0]
    rows = ssvid.probe(recipe(ucf), backbone=weights, out=tmp_path, device="cpu", show_progress=False).rows
    names = list(dict.fromkeys(row.name for row in rows))
    assert names[0] == "pretrained"
    assert {"random", "single frame", "shuffled frames", "histograms"} <= set(names)
    metrics = {name: {r.metric for r in rows if r.name == name} for name in names}
    assert metrics["pretrained"] == metrics["histograms"] == {"probe_top1", "knn3_top1", "recall_at_1"}
    floor = [row for row in rows if (row.name, row.metric) == ("histograms", "probe_top1")]
    assert all(row.value == 1.0 for row in floor), "the classes are colors: a histogram tells them apart"


def test_folds_and_seeds_are_summarized(evaluated):
    outcome, _, folder = evaluated
    mine = [row for row in outcome.rows if (row.name, row.metric) == ("pretrained", "probe_top1")]
    assert [(row.context["fold"], row.context["seed"]) for row in mine] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    (summary,) = [s for s in outcome.summaries if (s.name, s.metric) == ("pretrained", "probe_top1")]
    assert summary.value == pytest.approx(np.mean([row.value for row in mine]))
    assert summary.num_videos == 12
    plain = json.loads((folder / "out" / "results.json").read_text())
    assert plain["summaries"] == [s.as_dict() for s in outcome.summaries]
    assert "standard deviation over folds" in str(outcome)
    assert outcome.as_dict()["differences"] == []  # no baseline was asked for but histograms


def test_a_fold_that_pretraining_saw_is_a_leak_and_its_own_train_split_is_not(evaluated):
    """Trained on the training videos of fold 1, a network has seen the test videos of fold 2."""
    leak = {
        (row.context["fold"], row.context["seed"]): row.context["leak"]
        for row in evaluated[0].rows
        if (row.name, row.metric) == ("pretrained", "probe_top1")
    }
    assert (leak[1, 0]["verdict"], leak[1, 0]["pretrained_on_train"], leak[1, 0]["pretrained_on_test"]) == (
        "clean",
        12,
        0,
    )
    assert (leak[2, 0]["verdict"], leak[2, 0]["pretrained_on_test"]) == ("leak", 6)
    assert (leak[1, 1]["verdict"], leak[2, 1]["verdict"]) == ("clean", "clean")
    assert "LEAK: 6 of 6 test videos were in the pretraining data" in str(evaluated[0])


def test_classes_are_told_apart_in_numbers_and_in_a_picture(evaluated):
    outcome, _, folder = evaluated
    plain = json.loads(outcome.path.read_text())["per_class"]["histograms"]["probe_top1"]
    assert plain == {label: [8, 8] for label in CLASSES}, "2 test videos, 2 folds, 2 seeds"
    picture = ET.parse(folder / "out" / "confusion.svg").getroot()
    assert int(picture.get("width")) > 100
    assert set(CLASSES) <= {element.text for element in picture.iter()}


def test_a_result_repeats_to_the_last_digit(evaluated, tmp_path):
    outcome, _, _ = evaluated
    shutil.rmtree(cache_folder() / "features")  # they are computed again
    elsewhere = json.loads(outcome.path.read_text())
    for row in elsewhere["rows"]:
        row["versions"]["instructions"] = "AVX1024"  # as of a machine that computes otherwise
        row.get("probe_protocol", {})["num_bootstrap"] = 2000  # as of a version that drew intervals
    elsewhere["recipe"]["probe"]["num_bootstrap"] = 2000
    (tmp_path / "elsewhere.json").write_text(json.dumps(elsewhere))
    again = ssvid.probe(from_results=tmp_path / "elsewhere.json", out=tmp_path / "again", show_progress=False)
    assert again.repeated.startswith(f"repeated: all {len(outcome.rows)} numbers")
    assert re.search(r"note: it was computed with instructions AVX1024, here \w+", again.repeated)
    for old, new in zip(read_results(outcome.path), read_results(again.path), strict=True):
        assert (old.value, old.interval, old.ids) == (new.value, new.interval, new.ids)


def test_what_has_changed_is_refused(evaluated, tmp_path, capsys):
    outcome, weights, _ = evaluated
    other = json.loads(outcome.path.read_text())
    for row in other["rows"]:
        row["manifest_sha256"] = "0" * 64  # as of videos that were relabeled since
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        DataError, match=r"whose table has the hash 0000000000000000, and .* files were added, removed, chan"
    ):
        ssvid.probe(from_results=tmp_path / "other.json", out=tmp_path / "a", show_progress=False)
    with pytest.raises(DataError, match="was measured with pretrained weights of the hash"):
        ssvid.probe(from_results=outcome.path, backbone=weights[::-1], out=tmp_path / "b", show_progress=False)
    with pytest.raises(RecipeError, match=r"'features.num_clips=2' would make it another one"):
        ssvid.probe(None, "features.num_clips=2", from_results=outcome.path, show_progress=False)
    plain = json.loads(outcome.path.read_text())
    del plain["rows"][0]["weights_sha256"]
    (tmp_path / "r.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match="the number probe_top1 of pretrained has no weights_sha256"):
        ssvid.probe(from_results=tmp_path / "r.json", show_progress=False)
    with pytest.raises(DataError, match=r"of kind 'probe'\. Repeat it with: ssvid probe --from"):
        ssvid.retrieve(from_results=outcome.path, show_progress=False)
    assert main(["probe", "--from", str(tmp_path / "nothing.json")]) == 2
    assert "must be a results.json that ssvid wrote" in " ".join(capsys.readouterr().err.split())
    assert not any((tmp_path / name).exists() for name in "ab")


def test_weights_trained_on_labels_stand_beside(evaluated, ucf, tmp_path):
    trained = initialize_backbone("tiny3d", {"width": 2}, seed=99)
    torch.save(trained.state_dict(), tmp_path / "labels.pth")
    few = {"random": False, "single_frame": False, "shuffled_frames": False, "histograms": False}
    given = {
        "backbone": evaluated[1][0],
        "supervised": tmp_path / "labels.pth",
        "device": "cpu",
        "show_progress": False,
    }
    rows = ssvid.probe(recipe(ucf, baselines=few), out=tmp_path / "out", **given).rows
    assert list(dict.fromkeys(row.name for row in rows)) == ["pretrained", "supervised"]
    supervised = next(row for row in rows if row.name == "supervised")
    assert supervised.context["weights_sha256"] == weights_sha256(trained.state_dict())
    assert supervised.context["leak"]["verdict"] == "unknown", "a foreign file does not say what it was trained on"


@pytest.mark.slow
def test_torchvisions_supervised_weights_stand_beside(ucf, tmp_path, hub_cache):
    state = hub_cache("video.r3d_18", "KINETICS400_V1")
    few = {"random": True, "single_frame": False, "shuffled_frames": False, "histograms": False}
    words = recipe(ucf, baselines=few) | {"backbone": {"name": "r3d_18"}}
    rows = ssvid.probe(
        words,
        backbone="random",
        supervised="torchvision:DEFAULT",
        out=tmp_path / "out",
        device="cpu",
        show_progress=False,
    ).rows
    top1 = {row.name: row for row in rows if row.metric == "probe_top1"}
    assert {"supervised", "random"} <= top1.keys()
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert top1["supervised"].context["weights_sha256"] == weights_sha256(body)
    assert top1["supervised"].context["leak"]["verdict"] == "unknown"
    assert "KINETICS400_V1" in json.dumps(top1["supervised"].context)


def test_a_protocol_and_what_was_changed_of_it_stand_beside(ucf, tmp_path):
    own = {"kind": "probe", "protocol": "ucf101-linear@1", "data": recipe(ucf)["data"], "folds": [1], **QUICK}
    quick = {**own, "baselines": {"histograms": False, "single_frame": False, "shuffled_frames": False}}
    network = {"name": "tiny3d", "options": {"width": 2}}
    more = {"probe": {**QUICK["probe"], "label_fractions": [0.25, 0.5]}}
    outcome = ssvid.probe({**quick, "backbone": network, **more}, backbone="random", out=tmp_path, show_progress=False)
    assert {row.metric for row in outcome.rows} == {"probe_top1", "probe_top1_of_25%", "probe_top1_of_50%"}, (
        "the protocol's own metrics alone"
    )
    note = outcome.rows[0].context["protocol"]
    assert note["id"] == "ucf101-linear@1"
    assert note["changed"]["features.num_frames"] == [16, 4]
    assert "protocol ucf101-linear@1, CHANGED: " in str(outcome)
    few = next(row for row in outcome.rows if row.metric == "probe_top1_of_25%")
    assert few.context["head"]["num_train"] == 3, "a quarter of four videos of each class"
    assert few.context["head"]["chosen"]["on"] == "all labels", "one video of a class: nothing to hold out"


def config(**values):
    return load_recipe({"kind": "probe", "data": {"root": "x"}, **values}).recipe


def test_runs_are_every_fold_with_every_seed_or_backbone():
    def planned(runs):
        return [(run.fold, run.seed, run.backbone, run.placebo) for run in runs]

    assert planned(plan_runs(config(seed=4), "a")) == [(0, 4, "a", None)]
    assert planned(plan_runs(config(data={"root": "x", "name": "ucf101"}), "a")) == [(1, 0, "a", None)]
    assert planned(plan_runs(config(folds=[1, 3], seeds=[5, 6]), "a")) == [
        (1, 5, "a", None), (1, 6, "a", None), (3, 5, "a", None), (3, 6, "a", None),
    ]  # fmt: skip
    assert planned(plan_runs(config(), ["a", "b"], ["p", "q"])) == [(0, 0, "a", "p"), (0, 1, "b", "q")]
    assert [run.placebo for run in plan_runs(config(), ["a", "b"], "train")] == ["train", "train"]
    with pytest.raises(RecipeError, match="one placebo for each backbone, and there are 1 for 2"):
        plan_runs(config(), ["a", "b"], "p")
    with pytest.raises(RecipeError, match="must be left out where several backbones are named"):
        plan_runs(config(seeds=[1, 2]), ["a", "b"])


def test_neither_recipe_nor_weights(capsys):
    assert main(["probe"]) == 2
    assert "ssvid probe needs a recipe, or --from RESULTS" in " ".join(capsys.readouterr().err.split())
    assert main(["probe", "probe/folder", "data.root=x"]) == 2
    assert "needs the weights to score. Add --backbone PATH" in " ".join(capsys.readouterr().err.split())


def test_show_says_the_protocol_its_changes_and_how_many_evaluations(capsys):
    assert main(["show", "ucf101-linear", "data.root=x", "features.num_clips=3", "seeds=[0,1]"]) == 0
    shown = capsys.readouterr().out
    assert "# protocol ucf101-linear@1\n# changed: features.num_clips=3, the protocol says 10\n" in shown
    assert "# 6 evaluations of each backbone: folds [1, 2, 3], seeds [0, 1]" in shown
    tuned = str(ssvid.show("ucf101-finetune", "data.root=x", "optim.epochs=5", "baselines.single_frame=false"))
    assert "# trained: the whole network, 5 epochs, sgd, cosine; the epoch is chosen on 10% of train" in tuned
    assert "# lr 0.0125 = base_lr 0.1 x 32 / 256" in tuned
    assert "# baselines, a training each: random, shuffled frames; without one: histograms" in tuned


def test_the_seed_recorded_is_the_seed_used(ucf, tmp_path):
    """A random network of seed 5 is that of seed=5, however the recipe says it."""
    few = dict.fromkeys(("histograms", "single_frame", "shuffled_frames"), False)
    quick = {"baselines": few, "backbone": {"name": "tiny3d", "options": {"width": 2}}}
    where = {"backbone": "random", "device": "cpu", "show_progress": False}
    listed, single = (
        ssvid.probe(recipe(ucf, **quick, **said), out=tmp_path / name, **where).rows
        for name, said in (("listed", {"seeds": [5]}), ("single", {"seed": 5}))
    )
    expected = weights_sha256(initialize_backbone("tiny3d", {"width": 2}, seed=5).state_dict())
    assert expected in {row.context["weights_sha256"] for row in listed}
    assert [(r.value, r.context["seed"], r.context["evaluation_seed"]) for r in listed] == [
        (r.value, 5, 5) for r in single
    ]
    several = plan_runs(config(seed=3), ["a", "b"])
    assert [(run.seed, run.recipe_seed, config_of(config(seed=3), run).seed) for run in several] == [
        (0, 3, 3),
        (1, 3, 3),
    ]


@pytest.mark.parametrize(
    ("said", "backbones", "why"),
    [
        ({"seeds": [0, 1, 2]}, ["a"], r"seeds \(\[0, 1, 2\]\) have no effect on the frozen features of a"),
        (
            {"folds": [1, 2]},
            ["a"],
            "folds .* are official splits of hmdb51, jhmdb and ucf101, and data.name=folder has one",
        ),
        ({}, ["a", "b", "a"], "--backbone names a twice"),
        ({"seeds": [4, 4]}, ["random"], "seeds names 4 twice"),
        ({"data": {"name": "ucf101", "root": "x"}, "folds": [3, 3]}, ["a"], "folds names 3 twice"),
    ],
)
def test_the_same_evaluation_several_times_is_refused(said, backbones, why):
    with pytest.raises(RecipeError, match=why):
        refuse_repetition(config(**said), backbones)


def test_seeds_that_have_an_effect_are_not_refused():
    refuse_repetition(config(seeds=[0, 1]), ["random"])  # another network each
    refuse_repetition(config(seeds=[5]), ["a"])
    refuse_repetition(config(kind="finetune", seeds=[0, 1]), ["a"])  # another head, other clips


# ---- any evaluation by its name


def test_one_of_ours_is_asked_by_its_name_and_gives_what_its_verb_gives(ucf, evaluated, tmp_path):
    few = {"random": False, "single_frame": False, "shuffled_frames": False}
    features, options = QUICK["features"], {"knn_ks": [3]}
    own = {"kind": "evaluate", "data": {"name": "ucf101", "root": str(ucf), "index_workers": 1}, "features": features}
    asked = {**own, "baselines": few, "evaluation": {"name": "knn", "options": options}}
    more = {"backbone": evaluated[1][0], "device": "cpu", "show_progress": False}
    rows = ssvid.evaluate(asked, out=tmp_path / "a", **more).rows
    assert [row.metric for row in rows if row.name == "pretrained"] == ["knn3_top1", "recall_at_1"]
    for row in rows:
        same = next(r for r in evaluated[0].rows if (r.name, r.metric) == (row.name, row.metric))  # of fold 1, seed 0
        assert (row.value, row.ids) == (same.value, same.ids)
    again = ssvid.evaluate(from_results=tmp_path / "a" / "results.json", out=tmp_path / "b", show_progress=False)
    assert again.repeated.startswith("repeated: all")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("finetune", "evaluation.name (finetune) has a verb of its own. Run it with: ssvid finetune"),
        ("nearest", "unknown evaluation 'nearest'"),
        ("", "unknown evaluation ''. Known: alignment, finetune, frame_probe, knn"),
    ],
)
def test_what_evaluate_cannot_ask_is_told(name, words, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"kind: evaluate\nevaluation: {{name: '{name}'}}\n")
    assert main(["evaluate", str(tmp_path / "mine.yaml"), "data.root=x", "--backbone", "random"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_differences_stand_below_the_table(tmp_path):
    """What a pretext task is worth is its paired difference to the placebo and to the random network."""
    rows = [
        ResultRow.counted(
            name, metric, np.arange(90) < right, 0.1, [str(i) for i in range(90)], [str(i) for i in range(90)], {}
        )
        for name, right in (("pretrained", 70), ("random", 60), ("placebo", 70))
        for metric in ("probe_top1", "knn20_top1")
    ]
    text = str(Outcome(rows, tmp_path / "results.json"))
    assert "paired over the test videos, in points, with 95 % intervals:" in text
    assert "pretrained - placebo: probe top-1 +0.0 [-4.0, +4.0]; k-NN (k=20) +0.0 [-4.0, +4.0]" in text
    assert "pretrained - random: probe top-1 +11.1 [" in text
    assert [d["name"] for d in Outcome(rows, tmp_path).as_dict()["differences"]] == [
        "pretrained - placebo", "pretrained - placebo", "pretrained - random", "pretrained - random",
    ]  # fmt: skip
