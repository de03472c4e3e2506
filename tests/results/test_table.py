"""The table over results: which numbers share a column, what is merged, and that every format says the same."""

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.intervals import share_interval
from ssvid.results.formats import as_csv, as_latex, as_markdown, as_text
from ssvid.results.reading import ProtocolUsed, Result
from ssvid.results.rows import ResultRow, compare_rows
from ssvid.results.summaries import summarize_difference
from ssvid.results.table import build_table

LINEAR = {"id": "ucf101-linear@1", "changed": {}, "sha256": "a" * 16}
CHANGED = {"id": "ucf101-linear@1", "changed": {"features.num_clips": [10, 2]}, "sha256": "b" * 16}
NAMELESS = {"id": "", "changed": {}, "sha256": "c" * 16}


def row(name, right, metric="probe_top1", fold=0, seed=0, protocol=LINEAR, ids=None, chance=0.25, **more):
    correct = np.array([digit == "1" for digit in right])
    ids = ids or tuple(f"{fold}/{i}.mp4" for i in range(len(right)))
    context = {"fold": fold, "seed": seed, "protocol": protocol, "notes": [], "manifest_sha256": f"m{fold}"} | more
    return ResultRow(name, metric, float(correct.mean()), share_interval(correct), chance, correct, ids, context)


def result(label, *rows, **more):
    return Result(Path(label) / "results.json", label, rows, **more)


@pytest.fixture(scope="module")
def rows():
    """Three networks, two metrics, one protocol."""
    return [
        row("pretrained", "11110111", notes=["protocol ucf101-linear@1 [aaaa]", "the penalty is at the edge"]),
        row("pretrained", "11111111", "probe_top5", chance=1.0),
        row("placebo", "11000111"),
        row("random", "10000101", notes=["the penalty is at the edge", "has <two> forms & a_name"]),
    ]


def test_networks_go_down_and_metrics_across(rows):
    table = build_table([result("mine", *rows)])
    assert [line.title for line in table.lines] == ["pretrained", "placebo", "random"]
    assert [column.metric for column in table.columns] == ["probe_top1", "probe_top5"]
    assert table.heads[0] == ("probe top-1", "ucf101-linear@1", "8 videos")
    assert table.lines[0].cells[0].value == 7 / 8
    assert table.lines[0].cells[0].interval == rows[0].interval
    assert 1 not in table.lines[1].cells
    assert table.chances == (0.25, 1.0)
    # each fact once; what does not hold for all lines is marked where it holds
    assert table.notes == ("[1] the penalty is at the edge", "[2] has <two> forms & a_name")
    assert [line.marks for line in table.lines] == [(1,), (), (1, 2)]


def test_differences_are_those_of_the_rows(rows):
    table = build_table([result("mine", *rows)])
    assert [line.network for line in table.differences] == ["pretrained - placebo", "pretrained - random"]
    for line, other in zip(table.differences, (rows[2], rows[3]), strict=True):
        expected = compare_rows(rows[0], other)
        assert set(line.cells) == {0}
        assert (line.cells[0].value, line.cells[0].interval) == (expected.mean, expected.interval)
    assert table.differences[0].cells[0].value == 2 / 8


def test_other_protocols_and_other_videos_get_columns_of_their_own(rows):
    others = [
        row("pretrained", "11110111", protocol=CHANGED),
        row("pretrained", "11110111", protocol=NAMELESS),
        row("pretrained", "11110111", ids=tuple("abcdefgh")),
        row("pretrained", "11110111", manifest_sha256="other content"),
    ]
    table = build_table(
        [result("mine", *rows), *(result(f"r{i}", r) for i, r in enumerate(others))], metrics=["probe_top1"]
    )
    assert len(table.columns) == 5
    assert len(set(table.heads)) == 5  # and no two look alike
    assert [head[1] for head in table.heads[:3]] == ["ucf101-linear@1", "ucf101-linear@1*", "settings cccccccc"]
    assert "features.num_clips=2 instead of 10" in table.about[1]
    assert all(len(line.cells) == 1 for line in table.lines)
    only = build_table([result("mine", *rows), result("other", others[1])], protocol="ucf101-linear")
    assert {column.protocol for column in only.columns} == {ProtocolUsed("ucf101-linear@1", "a" * 16)}
    assert len(build_table([result("mine", *rows), result("other", others[1])], protocol="cccccc").columns) == 1


def test_what_is_not_there_is_told(rows):
    with pytest.raises(
        DataError, match=r"no number of metric nope and protocol hmdb51-linear .* probe_top1, probe_top5"
    ):
        build_table([result("mine", *rows)], metrics=["nope"], protocol="hmdb51-linear")


def test_results_in_one_table_are_told_apart_and_equal_baselines_are_one_line(rows):
    other = [row("pretrained", "11111111"), rows[3], row("placebo", "00000111")]
    table = build_table([result("mine", *rows), result("other", *other)])
    titles = [line.title for line in table.lines]
    assert titles == ["mine: pretrained", "mine: placebo", "random", "other: pretrained", "other: placebo"]
    assert [line.title for line in table.differences][2] == "other: pretrained - placebo"


def test_folds_and_seeds_are_summarized_with_their_spread():
    runs = [
        row(name, right, fold=fold, seed=seed)
        for name, all_right in (("pretrained", ("1111", "1110", "1100", "1101")), ("random", ("1000", "1010", "0100", "0001")))
        for (fold, seed), right in zip([(1, 0), (1, 1), (2, 0), (2, 1)], all_right, strict=True)
    ]  # fmt: skip
    (line, _), (difference,) = (lambda t: (t.lines, t.differences))(build_table([result("mine", *runs)]))
    cell = line.cells[0]
    assert cell.value == pytest.approx((1 + 0.75 + 0.5 + 0.75) / 4)
    assert cell.over_folds == pytest.approx(np.std([0.875, 0.625], ddof=1))
    assert cell.over_seeds == pytest.approx(np.std([0.75, 0.75], ddof=1))
    assert (cell.num_folds, cell.num_seeds, cell.num_videos, cell.num_groups) == (2, 2, 8, 8)
    expected = summarize_difference(runs, "pretrained", "random", "probe_top1")
    assert difference.cells[0].value == expected.value
    assert difference.cells[0].interval == expected.interval
    # a result with one of the folds was measured on other videos
    assert len(build_table([result("mine", *runs), result("one", runs[0])]).columns) == 2


def test_what_cannot_be_paired_is_told(rows):
    runs = [row("pretrained", "1111", seed=s) for s in (0, 1)] + [row("random", "1000")]
    table = build_table([result("mine", *runs)])
    assert table.differences == ()
    assert any(note.startswith("no paired difference pretrained - random: ") for note in table.notes)


def test_published_numbers_stand_apart_with_their_source():
    rows = [
        row("pretrained", "1111", "recall_at_1", protocol={"id": "vcop-retrieval@1", "changed": {}, "sha256": "d" * 16})
    ]
    table = build_table([result("mine", *rows)])
    assert table.published
    assert all(0 < line.values[0] < 1 and line.source for line in table.published)
    text = as_text(table)
    assert (
        text.index("pretrained")
        < text.index("published by others, not measured here")
        < text.index(table.published[0].source)
    )


# ---- formats


@pytest.fixture(scope="module")
def table(rows):
    seeds = [
        row("pretrained", right, "recall_at_1", seed=s, protocol=NAMELESS) for s, right in enumerate(["1110", "1100"])
    ]
    return build_table([result("a|b", *rows), result("50%_done", *seeds)])


def test_csv_holds_every_number_in_full(table):
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    measured = [line for line in lines if line["what"] == "measured"]
    cells = [(line, i, cell) for line in table.lines for i, cell in line.cells.items()]
    assert len(measured) == len(cells) == 5
    for found, (line, i, cell) in zip(measured, cells, strict=True):
        assert (found["result"], found["network"]) == (line.result, line.network)
        assert found["metric"] == table.columns[i].metric
        assert (float(found["value"]), float(found["low95"]), float(found["high95"])) == (cell.value, *cell.interval)
        assert found["protocol_sha256"] == table.columns[i].protocol.sha256
    assert [float(line["value"]) for line in lines if line["what"] == "run"] == [0.75, 0.5]
    assert [float(line["value"]) for line in lines if line["what"] == "difference"] == [0.25, 0.5]


def test_json_holds_every_number_in_full(table):
    plain = json.loads(json.dumps(table.as_dict(), allow_nan=False))
    assert [line["network"] for line in plain["lines"]] == [line.network for line in table.lines]
    for told, line in zip(plain["lines"], table.lines, strict=True):
        assert {int(i): cell["value"] for i, cell in told["cells"].items()} == {
            i: c.value for i, c in line.cells.items()
        }
    assert plain["columns"][0]["protocol"] == LINEAR


def read_pipes(text):
    """The first pipe table of a Markdown text: cells between pipes that are not escaped, as they are read."""
    lines = [line for line in text.split("\n\n")[0].splitlines() if line.startswith("|")]
    cells = [[re.sub(r"\\(.)", r"\1", c.strip()) for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return cells[0], cells[2:]


def test_markdown_reads_back(table):
    heads, lines = read_pipes(as_markdown(table))
    assert heads[1] == "probe top-1<br>ucf101-linear@1<br>8 videos"
    assert [line[0] for line in lines] == [
        "a|b: pretrained [1]",
        "a|b: placebo",
        "a|b: random [1][2]",
        "50%_done: pretrained",
        "chance",
    ]
    for found, line in zip(lines, table.lines, strict=False):
        for i, text in enumerate(found[1:]):
            cell = line.cells.get(i)
            assert text.startswith(f"{100 * cell.value:.1f} [{100 * cell.interval[0]:.1f}" if cell else "-")
    assert r"has \<two\> forms & a\_name" in as_markdown(table)


def test_text_is_aligned_and_fits_a_screen(table):
    lines = as_text(table).splitlines()
    start = lines[0].index("probe top-5")
    assert lines[1].index("ucf101-linear@1", start) == start
    assert "sd 17.7 (2 seeds)" in as_text(table)
    many = [row("pretrained", "1110", f"recall_at_{k}") for k in range(1, 20)]
    wide = as_text(build_table([result("mine", *many)]))
    assert max(map(len, wide.splitlines())) <= 150
    assert all(f"R@{k}" in wide for k in range(1, 20))


def test_latex_escapes_everything_that_means_something(table):
    text = as_latex(table)
    assert r"50\%\_done: pretrained" in text
    assert r"has \textless{}two\textgreater{} forms \& a\_name" in text
    assert not re.search(r"(?<!\\)[%#$]", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(table.columns)}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(table, tmp_path):
    page = "\\documentclass{article}\\begin{document}\n" + as_latex(table) + "\n\\end{document}\n"
    (tmp_path / "t.tex").write_text(page, encoding="utf-8")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


def test_columns_of_one_metric_say_in_which_settings_they_differ():
    """R@1 of a probe and of a retrieval: the same metric, by other stages and another pooling."""
    ways = [
        (NAMELESS, {"kind": "probe", "features": {"stages": "all", "pool": "avgmax", "num_clips": 4, "workers": 2}}),
        (NAMELESS | {"sha256": "d" * 16}, {"kind": "retrieve", "features": {"stages": "trained", "pool": "avg", "num_clips": 4, "workers": 0}}),
    ]  # fmt: skip
    results = [
        result(f"run{i}", row("pretrained", "1101", "recall_at_1", protocol=protocol), recipe=recipe)
        for i, (protocol, recipe) in enumerate(ways)
    ]
    heads = build_table(results).heads
    assert [head[1] for head in heads] == [
        "settings cccccccc: features.stages=all, features.pool=avgmax",
        "settings dddddddd: features.stages=trained, features.pool=avg",
    ]
    assert build_table(results[:1]).heads[0][1] == "settings cccccccc"


WITHOUT_NAMES = ({"id": "", "changed": {}, "sha256": "c" * 16}, {"id": "", "changed": {}, "sha256": "d" * 16})
ONE_NAME = tuple(CHANGED | {"id": "davis2017-crw@1", "sha256": key * 16} for key in "ef")
TWO_NAMES = tuple(
    LINEAR | {"id": name, "sha256": name[-3] * 16} for name in ("davis2017-crw@1", "davis2017-dino@1")
)  # fmt: skip


@pytest.mark.parametrize("notes", [None, WITHOUT_NAMES, ONE_NAME, TWO_NAMES], ids=["old", "nameless", "one", "two"])
@pytest.mark.parametrize("kind", ["track", "evaluate"])
@pytest.mark.parametrize("change", [{"top_k": 5}, {"radius_on_first": True}, {"temperature": 0.7, "stage": "layer3"}])
def test_two_ways_to_track_never_share_a_column(notes, kind, change):
    ways = [dataclasses.asdict(PropagationProtocol(**given)) for given in ({}, change)]
    results = []
    for i, way in enumerate(ways):
        recipe = {"track": way} if kind == "track" else {"evaluation": {"name": "label_propagation", "options": way}}
        made = row("pretrained", "1101", "davis_jf", protocol=notes and notes[i], track_protocol=way)
        results.append(result(f"run{i}", made, recipe=recipe))
    table = build_table(results)
    assert [set(line.cells) for line in table.lines] == [{0}, {1}]
    assert len({head[1] for head in table.heads}) == 2
    if not (notes and notes[0]["id"]):  # without a name the settings that differ tell them apart
        for head, way in zip(table.heads, ways, strict=True):
            _, _, told = head[1].partition(": ")
            assert sorted(told.split(", ")) == sorted(f"track.{key}={way[key]}" for key in change)


def test_speed_and_rounding_make_no_column_of_their_own():
    ways = [
        dataclasses.asdict(PropagationProtocol(max_mb=mb, precision=p)) for mb, p in ((512, "float32"), (64, "float16"))
    ]
    rows = [row("pretrained", "1101", "davis_jf", protocol=None, track_protocol=way) for way in ways]
    assert len(build_table([result(f"run{i}", made) for i, made in enumerate(rows)]).columns) == 1
