"""One network under one protocol, from encoded videos to rows and a file."""

import json
import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.data.manifest import Manifest
from ssvid.errors import DataError, PluginError, RecipeError
from ssvid.evals import measuring
from ssvid.evals.contract import Evaluation, Number, Subject, Tools
from ssvid.evals.measuring import measure, notes_of, see
from ssvid.features.protocol import BaselineProtocol, resolve_feature_protocol
from ssvid.features.reading import clips_of, read_videos
from ssvid.recipe.schema import ProbeRecipe
from ssvid.results.leaks import leak_note, leak_words
from ssvid.results.rows import read_results, render_table, write_results
from tests.frozen import ask, beside, labeled

ALONE = BaselineProtocol(random=False, histograms=False, single_frame=False, shuffled_frames=False)


@pytest.fixture
def evaluate(backbone, manifest, quick, probe):
    def run(*, manifest=manifest, train=None, test=None, provenance=None, name="pretrained", probe=probe, tools=None):
        backbone.provenance = provenance or {}
        data = labeled(manifest, train=train, test=test)
        tools = tools or Tools()
        rows = ask("linear_probe", backbone, data, probe, quick, tools=tools, name=name)
        return rows + ask("knn", backbone, data, probe, quick, tools=tools, name=name)

    return run


def test_colors_are_told_apart_by_any_network(evaluate, backbone):
    """The three classes differ in color: even an untrained network's first stage tells them apart."""
    rows = evaluate()
    assert [row.metric for row in rows] == ["probe_top1", "knn3_top1", "recall_at_1"]
    assert all(row.name == "pretrained" for row in rows)
    assert all(len(row.ids) == 9 for row in rows)
    assert rows[0].value >= 8 / 9
    assert rows[0].chance == pytest.approx(1 / 3)


def test_each_number_carries_its_whole_protocol(evaluate, manifest, backbone, tmp_path):
    provenance = {"stage": "stage2", "placebo": True, "partial": False, "content_ids": ["a", "b"]}
    rows = evaluate(provenance=provenance, name="placebo")
    context = json.loads(write_results(tmp_path, rows).read_text())["rows"][0]
    assert context["feature_protocol"]["stages"] == "stage1,stage2"  # not beyond what was trained
    assert context["feature_protocol"]["crop_px"] == 24
    assert context["probe_protocol"]["regularization"] == [0.01, 0.1, 1.0]
    assert context["head"]["chosen"]["on"] == "held-out part of train"
    assert len(context["head"]["grid"]) == 3
    assert context["head"]["num_heldout"] == 18
    assert context["weights"] == {
        "stage": "stage2", "placebo": True, "partial": False, "num_pretraining_videos": 2
    }  # fmt: skip
    assert len(context["weights_sha256"]) == 64
    assert context["backbone"]["name"] == "tiny3d"
    assert context["manifest_sha256"] == manifest.sha256()
    assert context["data"]["test"] == {
        "split": ["test"], "num_videos": 9, "num_classes": 3, "unreadable": [], "padded": [], "decoders": {"pyav": 9}
    }  # fmt: skip
    assert context["versions"]["torch"]
    assert context["interval95"][0] <= context["value"] <= context["interval95"][1]
    assert len(read_results(tmp_path / "results.json")) == 3


def test_the_same_evaluation_gives_the_same_rows(evaluate, tmp_path):
    first, again, cached = (
        evaluate(),
        evaluate(tools=Tools(cache_dir=tmp_path)),
        evaluate(tools=Tools(cache_dir=tmp_path)),
    )
    for rows in (again, cached):
        for row, other in zip(first, rows, strict=True):
            np.testing.assert_array_equal(row.correct_N, other.correct_N)
            assert (row.value, row.interval, row.context) == (other.value, other.interval, other.context)


def test_an_unreadable_test_video_is_wrong_and_listed(evaluate, manifest):
    test = list(manifest.select("test").rows)
    test[0] = replace(test[0], status="unreadable: cut off")
    train = list(manifest.select("train").rows)
    train[0] = replace(train[0], path="train/blue/gone.mp4")
    whole = Manifest(manifest.root, (*train, *test))
    rows = evaluate(manifest=whole, train=train, test=test)
    for row in rows:
        assert len(row.ids) == 9
        assert not row.correct_N[0]
        assert row.value <= 8 / 9
        assert row.context["data"]["test"]["unreadable"] == [[test[0].path, "unreadable: cut off"]]
        assert row.context["data"]["train"]["unreadable"][0][0] == "train/blue/gone.mp4"
    table = render_table(rows)
    assert "unreadable test videos, counted as wrong: 1 (test/blue/0.mp4)" in table
    assert "unreadable training videos, left out: 1 (train/blue/gone.mp4)" in table


def test_progress_runs_once_over_train_and_test(backbone, manifest, quick, tmp_path):
    told = []
    subjects = [
        Subject(name, initialize_backbone("tiny3d", {"width": 4}, seed=i), quick) for i, name in enumerate("ab")
    ]
    seen = see(subjects, labeled(manifest), Tools(cache_dir=tmp_path, say=told.append))
    assert [(len(one.train.ids), len(one.test.ids)) for one in seen.values()] == [(18, 9)] * 2
    counts = [[int(n) for n in re.findall(r"(\d+)/(\d+)", text)[0]] for text in told[1:]]
    assert [18, 18] in counts and counts[-1] == [9, 9]
    assert [done for done, total in counts if total == 18] == sorted({done for done, total in counts if total == 18})


def test_a_leak_is_counted(manifest):
    train, test = manifest.select("train").rows, manifest.select("test").rows
    seen = [test[0].content_id, train[0].content_id]
    assert leak_note(test, train, {"content_ids": seen}) == {
        "num_test": 9, "pretrained_on_test": 1, "same_content_in_train_and_test": 0,
        "pretrained_on_siblings": 0, "pretrained_on_train": 1, "verdict": "leak", "cannot_tell": 0, "by_quick_id": False,
    }  # fmt: skip
    clean = leak_note(test, train, {"content_ids": [train[0].content_id]})
    assert (clean["verdict"], clean["pretrained_on_test"], clean["pretrained_on_train"]) == ("clean", 0, 1)
    assert "legitimate" in leak_words(clean)[0]
    prepared = [replace(test[0], content_id="smaller copy", source_id=test[0].content_id)]
    assert leak_note(prepared, train, {"content_ids": seen})["pretrained_on_test"] == 1
    assert leak_note(test, train, {})["pretrained_on_test"] is None
    copy = replace(train[3], path="test/copy.mp4")
    assert leak_note([*test, copy], train, {})["same_content_in_train_and_test"] == 1


def test_a_sibling_of_the_group_is_a_leak_in_another_split_too(manifest):
    """UCF101 cuts a group's clips from one recording: split 1 trains on groups that split 2 tests on."""
    rows = [replace(row, group=f"g{i // 3}") for i, row in enumerate(manifest.rows)]
    test, train, unused = [rows[0]], rows[9:], rows[1]
    note = leak_note(test, train, {"content_ids": [unused.content_id]}, rows)
    assert (note["pretrained_on_test"], note["pretrained_on_siblings"], note["verdict"]) == (0, 1, "siblings")
    assert "LEAK: 1 of 1 test videos have a sibling" in leak_words(note)[0]
    assert leak_note(test, train, {"content_ids": [rows[3].content_id]}, rows)["verdict"] == "clean"


def test_a_leak_is_said_in_the_table(evaluate, manifest):
    seen = [row.content_id for row in manifest.select("test").rows[:4]]
    rows = evaluate(provenance={"content_ids": seen, "partial": True})
    assert "LEAK: 4 of 9 test videos were in the pretraining data (without their labels)" in render_table(rows)
    assert "the weights were loaded in part (--partial or init_partial)" in render_table(rows)


# ---- what cannot be evaluated


def test_a_placebo_that_kept_true_answers_is_told_from_one_that_did_not(evaluate):
    row = evaluate()[0]
    words = "kept its true answer"
    for weights, told in (
        ({"placebo": False}, False),
        ({"placebo": True}, True),
        ({"placebo": True, "placebo_answers": "of other videos"}, False),
    ):
        notes = notes_of({**row.context, "weights": row.context["weights"] | weights})
        assert any(words in note for note in notes) is told


def test_no_labels(evaluate, manifest):
    bare = manifest.with_rows(replace(row, label="") for row in manifest.rows)
    with pytest.raises(DataError, match=r"none of the 27 videos of the manifest has a label.*data.name=class_folder"):
        evaluate(manifest=bare, train=bare.rows[:18], test=bare.rows[18:])


def test_some_labels(evaluate, manifest):
    test = [replace(manifest.rows[-1], label=""), *manifest.rows[18:20]]
    with pytest.raises(DataError, match=r"1 of 3 test videos have no label, the first is 'test/red/2.mp4'"):
        evaluate(test=test)


@pytest.mark.parametrize("side", ["train", "test"])
def test_no_split(evaluate, side):
    with pytest.raises(DataError, match=f"there is no {side} video; the manifest's splits are test, train"):
        evaluate(**{side: ()})


def test_a_class_that_is_only_in_test(evaluate, manifest):
    train = [row for row in manifest.select("train").rows if row.label != "green"]
    with pytest.raises(DataError, match=r"class 'green' is in test and has no readable training video"):
        evaluate(train=train)


def test_a_video_in_both_splits(evaluate, manifest):
    with pytest.raises(DataError, match=r"1 videos are in both train and test, the first is 'train/blue/0.mp4'"):
        evaluate(test=[manifest.rows[0]])


def test_a_protocol_that_does_not_fit_is_refused_before_a_video_is_read(backbone, manifest, quick, probe, monkeypatch):
    seen = []
    monkeypatch.setattr(measuring, "see", lambda *_: seen.append(1))
    recipe = ProbeRecipe(features=quick, probe=replace(probe, knn_ks=(30,)))
    with pytest.raises(RecipeError, match=r"probe.knn_ks \(\[30\]\) must be at most the number of training videos, 18"):
        beside(recipe, backbone, labeled(manifest), pretrained=backbone)
    assert not seen


def test_weights_and_tables_of_before_are_compared_by_quick_ids_and_that_is_said(manifest):
    """Never a silent "no leak": what cannot be compared makes the verdict unknown."""
    today = replace(manifest.rows[0], content_id="1" * 64, quick_id="a" * 32)
    before = replace(today, content_id=today.quick_id)
    for test, seen, on_test, verdict, words in (
        (today, today.content_id, 1, "leak", ["LEAK"]),
        (today, "2" * 64, 0, "clean", []),
        (today, today.quick_id, 1, "leak", ["LEAK", "64 KiB"]),
        (today, "b" * 32, 0, "clean", ["64 KiB"]),
        (before, today.quick_id, 1, "leak", ["LEAK", "64 KiB"]),
        (before, today.content_id, 0, "unknown", ["cannot be told", "64 KiB"]),
    ):
        note = leak_note([test], [], {"content_ids": [seen]})
        assert (note["pretrained_on_test"], note["verdict"]) == (on_test, verdict)
        said = leak_words(note)
        assert len(said) == len(words) and all(word in text for word, text in zip(words, said, strict=True))


def test_nothing_is_trained_where_neighbors_alone_are_asked_for(backbone, manifest, quick, probe, monkeypatch):
    from ssvid.evals import hand_made
    from ssvid.evals.linear_probe import evaluation

    def trained(*args, **more):
        raise AssertionError("something was trained")

    monkeypatch.setattr(evaluation, "linear_probe", trained)
    monkeypatch.setattr(hand_made, "select_cost", trained)
    rows = beside(
        ProbeRecipe(features=quick, probe=probe), backbone, labeled(manifest), metrics=("knn",), pretrained=backbone
    )
    for name in ("pretrained", "histograms", "random"):
        assert {row.metric for row in rows if row.name == name} == {"knn3_top1", "recall_at_1"}
    choice = next(row for row in rows if row.name == "random").context["better_form"]
    assert set(choice["heldout_top1"]) == {"initial", "calibrated"}
    assert choice["heldout_top1"][choice["form"]] == max(choice["heldout_top1"].values())


def test_neighbors_are_not_searched_where_a_probe_alone_is_asked_for(backbone, manifest, quick, probe):
    many = replace(probe, knn_ks=(500,))  # more than there are: nobody asked
    recipe = ProbeRecipe(features=quick, probe=many, baselines=ALONE)
    found = beside(recipe, backbone, labeled(manifest), metrics=("probe_",), pretrained=backbone)
    assert {row.metric for row in found} == {"probe_top1"}


class Became(NamedTuple):
    unreadable: tuple = ()
    padded: tuple = ()
    decoders: dict | None = None


class BrightMaps(Evaluation):
    """Whether the first stage is brighter for a video than it is on average: it reads the videos itself."""

    needs = "maps"
    says = True

    def score(self, subject, seen, data, config, tools):
        assert seen is None
        protocol = resolve_feature_protocol(subject.protocol, subject.network.info)
        means = []
        for item in read_videos(data.manifest, data.test, protocol):
            with torch.no_grad():
                means.append(float(subject.network(clips_of([item], torch.device("cpu")), "stage1").mean()))
        seen = (Became(), Became(decoders={"pyav": len(means)})) if self.says else None
        yield Number("bright", np.array(means) > np.mean(means), 0.5, seen=seen)


def test_an_evaluation_may_read_the_videos_itself_and_says_what_became_of_them(backbone, manifest, quick):
    subject, data = Subject("pretrained", backbone, quick), labeled(manifest)
    (row,) = measure({BrightMaps(): None}, subject, None, data, Tools())
    assert (row.metric, row.ids) == ("bright", tuple(video.path for video in data.test))
    assert row.context["data"]["test"]["decoders"] == {"pyav": 9}
    assert "feature_protocol" not in row.context
    assert not BrightMaps().has_two_random_forms(None), "without vectors nobody can say which one is better"
    silent = BrightMaps()
    silent.says = False
    with pytest.raises(PluginError, match=r"BrightMaps needs maps, and its number 'bright' does not say what became"):
        list(measure({silent: None}, subject, None, data, Tools()))
