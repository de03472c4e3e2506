"""``report``: which files it reads, what it calls them, what it refuses, what it writes."""

import json

import numpy as np
import pytest

import ssvid
from ssvid.cli import main
from ssvid.errors import DataError, RecipeError, RunFolderError
from ssvid.results.confusion import draw_confusion
from ssvid.results.rows import write_results
from tests.results.test_page import Page, save_picture
from tests.results.test_table import CHANGED, LINEAR, row

FEATURES = {"num_clips": 10, "pool": "avg"}


def write(folder, *rows, recipe=None):
    folder.mkdir(parents=True, exist_ok=True)
    return write_results(folder, rows, extra={"kind": "probe", "recipe": recipe or {"features": FEATURES}})


def make_run(folder):
    """A pretraining run as ``ssvid pretrain`` leaves it, as far as a report reads it."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.resolved.yaml").write_text("kind: pretrain\nseed: 3\n")
    (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 0, "train/loss": 0.5, "train/lr": 0.1}\n')
    (folder / "env.json").write_text('{"python": "3.11.7", "gpus": []}')
    (folder / "results.json").write_text(json.dumps({"metrics": {"accuracy": 0.75}, "chance": {}, "num_steps": 2}))
    save_picture(folder / "pictures" / "val_epoch0000_clips.png")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs: one probed and retrieved, one probed twice with other weights."""
    mine, other = make_run(tmp_path / "mine"), make_run(tmp_path / "other")
    write(mine / "probe-folder", row("pretrained", "1110", weights_sha256="w"), row("random", "1000"))
    write(mine / "retrieve-folder", row("pretrained", "1100", "recall_at_1", weights_sha256="w"))
    write(other / "probe-folder", row("pretrained", "1111", weights_sha256="x"))
    write(other / "probe-folder-2", row("pretrained", "0000", weights_sha256="y"))
    return tmp_path


def test_evaluations_of_one_run_share_a_line_unless_they_contradict(runs):
    found = ssvid.report(runs / "mine", runs / "other")
    titles = [line.title for line in found.table.lines]
    assert titles == [
        "mine: pretrained",
        "mine: random",
        "other/probe-folder: pretrained",
        "other/probe-folder-2: pretrained",
    ]
    assert found.table.lines[0].cells.keys() == {0, 1}
    assert [path.parent.name for path in found.results] == [
        "probe-folder",
        "retrieve-folder",
        "probe-folder",
        "probe-folder-2",
    ]
    # a file and its folder are one result, and pretraining's own results.json is none
    again = ssvid.report(runs / "mine", runs / "mine" / "probe-folder" / "results.json", runs / "mine" / "probe-folder")
    assert len(again.results) == 2


def test_runs_of_one_name_get_more_of_their_path(tmp_path):
    for parent in ("a", "b"):
        write(tmp_path / parent / "mine", row("pretrained", "1110"))
    assert [line.result for line in ssvid.report(tmp_path).table.lines] == ["a/mine", "b/mine"]


def test_one_column_is_refused_with_the_settings_that_differ(tmp_path):
    a = write(tmp_path / "a", row("pretrained", "1110"))
    b = write(
        tmp_path / "b", row("pretrained", "1110", protocol=CHANGED), recipe={"features": FEATURES | {"num_clips": 2}}
    )
    c = write(tmp_path / "c", row("pretrained", "1110", ids=("0/0.mp4", "x", "y", "z")))
    assert len(ssvid.report(a, b, c).table.columns) == 3
    with pytest.raises(DataError, match=r"probe top-1 was measured in 2 ways.* ucf101-linear@1 on 4 videos and ucf101-linear@1\* on 4 "
                       r"videos\. They differ in features\.num_clips: 10 -> 2\. .*leave --one-column out"):  # fmt: skip
        ssvid.report(a, b, one_column=True)
    with pytest.raises(DataError, match=r"differ in the test videos: 4 and 4, 1 of them in both"):
        ssvid.report(a, c, one_column=True, metric=["probe_top1"])
    assert len(ssvid.report(a, a, one_column=True).table.columns) == 1


def test_what_is_no_result_is_told(runs, tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Name a results\.json"):
        ssvid.report(tmp_path / "nowhere")
    bare = make_run(tmp_path / "bare")
    with pytest.raises(
        DataError, match=r"bare holds no results\.json of an evaluation.* ssvid probe RECIPE --backbone"
    ):
        ssvid.report(bare)
    with pytest.raises(DataError, match=r"must be a results\.json that ssvid wrote"):
        ssvid.report(bare / "results.json")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json cannot be read \(JSONDecodeError"):
        ssvid.report(tmp_path / "bad")
    with pytest.raises(RecipeError, match=r"format \('latx'\) is unknown\. Did you mean 'latex'\?"):
        ssvid.report(runs / "mine", format="latx")
    with pytest.raises(RecipeError, match=r"--html makes a page of one run, and 2 are named"):
        ssvid.report(runs / "mine", runs / "other", html=tmp_path / "x.html")
    with pytest.raises(RecipeError, match=r"needs at least one RESULT"):
        ssvid.report()


def test_the_page_of_a_run_has_its_curves_pictures_and_evaluations(runs):
    (runs / "mine" / "probe-folder" / "confusion.svg").write_text(draw_confusion("t", ["a", "b"], np.eye(2, dtype=int)))
    save_picture(runs / "mine" / "probe-folder" / "older.png")
    found = ssvid.report(runs / "mine", html=runs / "mine.html")
    page = Page((runs / "mine.html").read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    for words in (
        "mine",
        "pretraining run",
        "2 optimizer steps",
        "val/accuracy",
        "probe top-1",
        "R@1",
        "3.11.7",
        "seed: 3",
    ):
        assert words in text
    assert [img["alt"].partition(":")[0] for img in page.all("img")] == [
        "confusion.svg", "older.png", "val_epoch0000_clips.png",
    ]  # fmt: skip
    assert len(page.all("svg")) == 2  # loss, learning rate
    assert f"page: {runs / 'mine.html'}" in str(found)


def test_a_run_without_evaluation_and_an_evaluation_alone_have_pages(runs, tmp_path):
    bare = make_run(tmp_path / "bare")
    found = ssvid.report(bare, html=tmp_path / "bare.html")
    assert found.table is None
    assert json.loads(json.dumps(found.as_dict()))["table"] is None
    assert "Nothing was evaluated yet." in (tmp_path / "bare.html").read_text()
    ssvid.report(runs / "mine" / "probe-folder", html=tmp_path / "probe.html")
    text = (tmp_path / "probe.html").read_text()
    assert "num_clips: 10" in text
    assert 'id="curves"' not in text
    (bare / "env.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"bare cannot be shown: .*env\.json holds a list"):
        ssvid.report(bare, html=tmp_path / "other.html")


@pytest.mark.parametrize("option", ["out", "html"])
def test_no_file_is_replaced_unasked(runs, tmp_path, option, capsys):
    file = tmp_path / "kept.htm" if option == "html" else tmp_path / "kept.txt"
    file.write_text("of another day")
    words = ["report", str(runs / "mine" / "probe-folder"), {"out": "-o", "html": "--html"}[option], str(file)]
    for form in ("text", "markdown", "latex", "csv"):
        assert main([*words, "--format", form]) == 2
        assert "replaces no file unasked. Add --overwrite" in " ".join(capsys.readouterr().err.split())
        assert file.read_text() == "of another day"
    assert main([*words, "--overwrite"]) == 0
    assert file.read_text() != "of another day"


def test_a_table_is_not_written_where_a_page_was_meant(runs, tmp_path):
    with pytest.raises(
        RecipeError, match=r"-o .*mine\.html\) is for the table, which is no HTML\. Write a page with --html"
    ):
        ssvid.report(runs / "mine", out=tmp_path / "mine.html")
    with pytest.raises(DataError, match=r"is a folder\. Name a file"):
        ssvid.report(runs / "mine", html=tmp_path)


def test_the_command_prints_writes_and_tells_json(runs, tmp_path, capsys):
    mine = str(runs / "mine")
    assert main(["report", mine, "--metric", "probe_top1", "--format", "csv", "-o", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out == f"table: {tmp_path / 't.csv'}\n"
    assert (
        (tmp_path / "t.csv").read_text().splitlines()[1].startswith("measured,,pretrained,probe_top1,ucf101-linear@1,")
    )
    assert main(["report", mine, "--json", "--protocol", LINEAR["id"]]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["table"]["lines"][0]["cells"]["0"]["value"] == 0.75
    assert main(["report", mine, "--protocol", "nope"]) == 2
    assert "no number of protocol nope" in " ".join(capsys.readouterr().err.split())


def test_parts_of_a_fine_tuning_are_no_results_of_their_own_and_its_curves_are_shown(tmp_path):
    mine = make_run(tmp_path / "mine")
    tuned = mine / "finetune-folder"
    hashes = {"weights_sha256": "w", "trained_sha256": "tuned"}
    write(tuned, row("pretrained", "1110", "finetune_top1", **hashes), row("random", "1000", "finetune_top1"))
    (tuned / "recipe.resolved.yaml").write_text("kind: finetune\n")
    for part in ("pretrained", "random"):
        write(tuned / part, row(part, "1110", "finetune_top1"))
        (tuned / part / "metrics.jsonl").write_text('{"step": 1, "epoch": 0, "train/loss": 0.5}\n')
    found = ssvid.report(mine, html=tmp_path / "mine.html")
    assert [path.parent for path in found.results] == [tuned]
    ssvid.report(tuned, html=tmp_path / "tuned.html")
    page = Page((tmp_path / "tuned.html").read_text(encoding="utf-8"))
    assert {"evaluation", "pretrained: loss", "random: loss", "kind: finetune\n"} <= set(page.texts)
    assert len(page.all("svg")) == 2
    write(mine / "probe-folder", row("pretrained", "1111", weights_sha256="w"))
    assert [line.title for line in ssvid.report(mine, metric=["finetune_top1", "probe_top1"]).table.lines] == [
        "pretrained",
        "random",
    ]
