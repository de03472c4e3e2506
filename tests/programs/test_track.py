"""Tracking as a program: numbers with their baselines, masks and films beside them, a result that repeats, mistakes."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import ssvid
from ssvid.cli import main
from ssvid.programs.report import report
from tests.evals.label_propagation.footage import NUM_FRAMES, make_tracked, mask_at

KNOBS = ["track.size_rule=native", "track.num_previous=3", "track.radius_cells=3"]
RANDOM = {"backbone": "random", "backbone_name": "tiny3d", "show_progress": False}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracked")
    make_tracked(root).save(root / "manifest.csv")
    return root


@pytest.fixture(scope="module")
def tracked(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "first"
    return ssvid.track("track/folder", f"data.root={videos}", *KNOBS, out=out, **RANDOM)


def test_numbers_stand_beside_what_else_can_follow(tracked):
    rows = tracked.rows
    assert {row.name for row in rows} == {"random", "identity", "raw pixels", "optical flow"}
    assert list(dict.fromkeys(row.metric for row in rows)) == [
        "davis_jf", "davis_j", "davis_j_recall", "davis_j_decay", "davis_f", "davis_f_recall", "davis_f_decay"
    ]  # fmt: skip
    text = str(tracked)
    assert "3 objects in 2 videos" in text and "J&F" in text
    plain = json.loads(tracked.path.read_text())
    jf = next(row for row in plain["rows"] if (row["name"], row["metric"]) == ("random", "davis_jf"))
    assert set(jf["per_sequence"]) == {"a", "b"} and len(jf["correct"]) == 3
    assert plain["video_lists"][jf["video_list"]] == ["a/1", "a/2", "b/1"]
    assert jf["track_protocol"]["stage"] == "stage4" and jf["maps"]["stride_px"] == 16
    assert jf["data"]["test"]["num_videos"] == 2 and jf["data"]["train"]["num_videos"] == 0


def test_masks_are_written_as_other_evaluators_take_them(tracked):
    files = sorted((tracked.path.parent / "masks").rglob("*.png"))
    assert [f"{f.parent.name}/{f.name}" for f in files] == [f"{v}/{t:05d}.png" for v in "ab" for t in range(NUM_FRAMES)]
    with Image.open(files[0]) as first:
        assert first.mode == "P" and first.size == (64, 48)
        np.testing.assert_array_equal(np.asarray(first), mask_at(2, 0))


def test_films_show_what_was_found_beside_the_truth(tracked):
    assert [path.name.split("-")[1] for path in tracked.pictures] == ["best", "worst"]
    from ssvid.video import scan_video

    assert scan_video(tracked.pictures[0]).info.num_frames == NUM_FRAMES


def test_a_result_repeats_and_evaluate_asks_the_same(tracked, videos, tmp_path):
    again = ssvid.track(from_results=tracked.path, backbone="random", out=tmp_path / "again", show_progress=False)
    assert "repeated: all 28 numbers" in again.repeated
    asked = {"name": "label_propagation", "options": {"size_rule": "native", "num_previous": 3, "radius_cells": 3.0}}
    recipe = {"kind": "evaluate", "data": {"name": "manifest", "root": str(videos)}, "evaluation": asked}
    evaluated = ssvid.evaluate(recipe, out=tmp_path / "evaluated", **RANDOM)
    theirs = {(row.name, row.metric): row.value for row in evaluated.rows}
    assert theirs == {(row.name, row.metric): row.value for row in tracked.rows}


def test_two_protocols_never_share_a_column(tracked, videos, tmp_path):
    place = [f"data.root={videos}", "data.name=manifest", "data.test_split="]
    off = "baselines={random: true, identity: false, pixels: false, flow: false}"
    small = [off, "track.size_rule=native", "track.multiple_px=1", "track.num_previous=2", "track.stride_px=8"]
    for name in ("davis2017-crw@1", "davis2017-dino@1"):
        made = ssvid.track(name, *place, *small, out=tmp_path / name, **RANDOM)
        assert made.protocol is not None and f"protocol {name}, CHANGED" in str(made)
    table = report(tmp_path / "davis2017-crw@1", tmp_path / "davis2017-dino@1", metric=["davis_jf"]).table
    assert len(table.columns) == 2 and all(len(line.cells) == 1 for line in table.lines)
    assert [head[1].rstrip("*") for head in table.heads] == ["davis2017-crw@1", "davis2017-dino@1"]
    by_crw = {line.method for line in table.published if line.protocol == "davis2017-crw@1"}
    assert "CRW" in by_crw and "DINO" not in by_crw
    assert all(set(line.values) == {0 if line.protocol == "davis2017-crw@1" else 1} for line in table.published)


def test_what_is_said_of_others_is_of_those_that_were_asked_for(videos, tmp_path, capsys):
    """Tracking has one form of the random network, and no row of single frames that could be missing."""
    options = {"size_rule": "native", "num_previous": 2, "radius_cells": 2.0, "measure": "objects"}
    recipe = {
        "kind": "evaluate", "data": {"name": "manifest", "root": str(videos)},
        "evaluation": {"name": "label_propagation", "options": options}, "backbone": {"options": {"input": "difference"}},
    }  # fmt: skip
    network = {"backbone": "random", "backbone_name": "tiny3d"}
    done = ssvid.evaluate(recipe, **network, out=tmp_path / "out")
    said = capsys.readouterr().err
    assert "the random network, as initialized\n" in said and "batch statistics" not in said
    assert {"random", "identity"} <= {row.name for row in done.rows}
    notes = [note for row in done.rows for note in row.context["notes"]]
    assert notes and not any("single frames" in note for note in notes)


def test_a_video_that_was_pretrained_on_is_a_leak(videos):
    from ssvid.data.manifest import Manifest
    from ssvid.results.leaks import leak_note, leak_words

    rows = Manifest.load(videos / "manifest.csv", videos).rows
    note = leak_note(rows, (), {"content_ids": [rows[0].content_id]}, rows)
    assert "LEAK: 1 of 2 test videos were in the pretraining data" in leak_words(note)[0]


def mistake(capsys, *words: str) -> str:
    assert main(["track", *words, "--backbone", "random", "--backbone-name", "tiny3d"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return " ".join(told.split())


def test_bad_masks_are_one_paragraph_and_nothing_is_written(videos, tmp_path, capsys):
    def broken(name, change):
        root = tmp_path / name
        manifest = make_tracked(root, num_objects=(1,))
        change(root, root / "truth" / "a")
        manifest.save(root / "manifest.csv")
        out = root / "out"
        told = mistake(capsys, "track/folder", f"data.root={root}", *KNOBS, "--out", str(out))
        assert not list(out.rglob("*.json"))
        return told

    def size(root, masks):
        Image.open(masks / "00002.png").resize((32, 24)).save(masks / "00002.png")

    def empty(root, masks):
        black = Image.new("L", (64, 48))
        for path in masks.iterdir():
            black.save(path)

    assert "00002.png has 32x24 pixels" in broken("size", size)
    assert "holds no object" in broken("empty", empty)
    assert "its first mask is of frame 1" in broken("first", lambda root, masks: (masks / "00000.png").unlink())


def test_one_frame_has_nothing_to_score(tmp_path, capsys):
    root = tmp_path / "one"
    make_tracked(root, num_objects=(1,), num_frames=1).save(root / "manifest.csv")
    told = mistake(capsys, "track/folder", f"data.root={root}", *KNOBS, "--out", str(root / "out"))
    assert "no sequence has a frame to score" in told


def test_what_does_not_go_together_is_told(videos, capsys):
    assert "did you mean" in mistake(capsys, "track/folder", f"data.root={videos}", "track.topk=5").lower()
    assert "track.width_px" in mistake(capsys, "track/folder", f"data.root={videos}", "track.size_rule=exact")
    assert "unknown recipe 'davis2017-cwr@1'" in mistake(capsys, "davis2017-cwr@1", f"data.root={videos}")


def test_settings_beside_the_protocol_stand_in_the_hash(videos):
    from ssvid.recipe.load import load_recipe
    from ssvid.recipe.protocol_notes import settings_sha256

    base = load_recipe("track/folder", [f"data.root={videos}"]).resolved
    hashes = {
        word: settings_sha256(load_recipe("track/folder", [f"data.root={videos}", word]).resolved)
        for word in ("track.top_k=5", "track.max_mb=100", "baselines.flow=false", "track.precision=float16")
    }
    own = settings_sha256(base)
    assert {word: found == own for word, found in hashes.items()} == {
        "track.top_k=5": False, "track.max_mb=100": True, "baselines.flow=false": True, "track.precision=float16": True
    }  # fmt: skip
    assert dataclasses.is_dataclass(load_recipe("track/folder", [f"data.root={videos}"]).recipe)
