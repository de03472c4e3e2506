"""Intervals, differences, the results file and the table."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.intervals import share_interval
from ssvid.results.rows import (
    ResultRow,
    compare_rows,
    over_seeds,
    paired_difference,
    read_results,
    render_table,
    write_results,
)


def make_row(name="pretrained", metric="probe_top1", right=(1, 1, 0, 1), **context):
    correct = np.array(right, dtype=bool)
    ids = tuple(f"{i}.mp4" for i in range(len(right)))
    interval = share_interval(correct)
    return ResultRow(name, metric, float(correct.mean()), interval, 0.25, correct, ids, context)


def test_a_paired_difference_by_hand():
    """a is right on 3 of 4, b on 1 of 4; they differ on two videos, both for a."""
    difference = paired_difference(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0]))
    assert difference.mean == 0.5
    assert difference.num_videos == 4
    low, high = difference.interval
    assert -0.3 < low < 0.5 < high <= 1.0  # of two gains in four videos nobody knows whether there is no loss
    low, high = paired_difference(np.ones(9), np.ones(9)).interval
    assert low == -high < -0.3  # nine videos that both have right: one in three may still be different


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(0)
    a = rng.random(400) < 0.5
    b = a.copy()
    b[:20] = ~b[:20]
    low, high = paired_difference(a, b).interval
    assert high - low < 0.5 * (share_interval(a)[1] - share_interval(a)[0])


def counted(right, groups, name="pretrained", **context):
    ids = [f"{i}.mp4" for i in range(len(right))]
    return ResultRow.counted(name, "probe_top1", np.array(right, dtype=bool), 0.25, ids, groups, context)


def test_groups_of_videos_count_in_every_interval(tmp_path):
    """Five clips of one recording, right or wrong together, know as much as one: in rows, differences, files, tables."""
    right = np.repeat(np.arange(12) < 9, 5)
    groups = [f"g{i // 5}" for i in range(60)]
    row, apart = counted(right, groups), counted(right, [str(i) for i in range(60)])
    assert (row.num_groups, apart.num_groups, apart.groups) == (12, 60, ())
    assert np.diff(row.interval)[0] > 1.8 * np.diff(apart.interval)[0]
    other = counted(np.repeat(np.arange(12) < 6, 5), groups, "random")
    difference = compare_rows(row, other)
    assert (difference.mean, difference.num_videos, difference.num_groups) == (0.25, 60, 12)
    assert difference.interval[0] < 0 < paired_difference(row.correct_N, other.correct_N).interval[0]
    read = read_results(write_results(tmp_path / "results.json", [row, other, apart]))
    assert [(r.groups, r.interval) for r in read] == [(r.groups, r.interval) for r in (row, other, apart)]
    plain = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [r["num_groups"] for r in plain] == [12, 12, 60]
    assert "Clopper-Pearson" in plain[0]["interval_method"]
    assert "60 test videos in 12 groups; [..] is" in render_table([row, other])


def test_intervals_of_older_files_are_computed_anew_and_said_so(tmp_path):
    path = write_results(tmp_path / "results.json", [make_row(right=[1] * 90, notes=["odd"])])
    plain = json.loads(path.read_text())
    row = plain["rows"][0]
    for key in ("interval_method", "num_groups", "group_list"):
        del row[key]
    row["interval95"] = [1.0, 1.0]
    path.write_text(json.dumps(plain))
    (read,) = read_results(path)
    assert read.interval == pytest.approx((0.9598, 1.0), abs=1e-4)
    assert "older kind of interval" in read.context["notes"][1]
    assert "100.0 [96, 100]" in render_table([read])


def test_only_the_same_videos_are_compared():
    row = make_row()
    assert compare_rows(row, make_row("placebo", right=(1, 0, 0, 0))).mean == 0.5
    with pytest.raises(DataError, match=r"must share metric and test videos .*on one manifest and split"):
        compare_rows(row, replace(row, ids=("other.mp4", *row.ids[1:])))
    with pytest.raises(DataError, match="must share metric and test videos"):
        compare_rows(row, replace(row, metric="recall_at_1"))
    with pytest.raises(DataError, match="needs both results on the same videos"):
        paired_difference(np.ones(3), np.ones(4))


def test_seeds_by_hand():
    """1, 2, 3: mean 2, deviation 1, standard error 1 / sqrt(3)."""
    summary = over_seeds([1.0, 2.0, 3.0])
    assert summary.mean == 2.0
    assert summary.standard_error == pytest.approx(1 / math.sqrt(3))
    assert summary.ratio == pytest.approx(2 * math.sqrt(3))
    assert summary.num_seeds == 3
    assert over_seeds([0.1, 0.1]).ratio == math.inf
    assert over_seeds([0.0, 0.0]).ratio == 0.0
    with pytest.raises(DataError, match=r"seeds \(1\) must be at least 2"):
        over_seeds([1.0])


def test_results_survive_the_file(tmp_path):
    rows = [make_row(seed=3, head={"regularization": 0.1}), make_row("placebo", right=(0, 1, 0, 0), seed=3)]
    path = write_results(tmp_path, rows, extra={"recipe": {"kind": "probe"}})
    assert path == tmp_path / "results.json"
    again = read_results(path)
    for row, back in zip(rows, again, strict=True):
        np.testing.assert_array_equal(row.correct_N, back.correct_N)
        assert replace(row, correct_N=None) == replace(back, correct_N=None)
    plain = json.loads(path.read_text())
    assert plain["format"] == 1
    assert plain["recipe"] == {"kind": "probe"}
    assert plain["versions"]["torch"]
    assert plain["rows"][0]["num_videos"] == 4
    assert plain["rows"][0]["correct"] == "1101"
    assert plain["rows"][0]["seed"] == 3
    assert list(plain["video_lists"].values()) == [["0.mp4", "1.mp4", "2.mp4", "3.mp4"]]  # once for both rows
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_what_older_versions_called_floor_is_read_under_its_name_of_today(tmp_path):
    path = write_results(tmp_path, [make_row("floor")])
    assert [row.name for row in read_results(path)] == ["histograms"]


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = write_results(tmp_path / "r.json", [make_row()])
    before = path.read_text()
    with pytest.raises(TypeError, match="no plain type"):
        write_results(path, [make_row(bad=np.float32(1))])
    with pytest.raises(ValueError, match="Out of range"):
        write_results(path, [make_row(bad=math.nan)])
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "rows": []}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"r\.json.* Evaluate again"):
        read_results(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json must be a results\.json that ssvid wrote .*No such file"):
        read_results(tmp_path / "gone.json")


def test_the_table():
    many = [1] * 160 + [0] * 40
    rows = [
        make_row(right=many, notes=["2 unreadable test videos, counted as wrong"]),
        make_row(metric="knn20_top1", right=many[::-1], notes=["2 unreadable test videos, counted as wrong"]),
        make_row("placebo", right=many[60:] + many[:60], notes=["2 unreadable test videos, counted as wrong", "odd"]),
    ]
    lines = render_table(rows).splitlines()
    assert lines[0].split("  ")[0] == "%"
    assert lines[0].endswith("k-NN (k=20)")
    assert lines[2].startswith("pretrained  80.0 [74, 8")
    assert lines[3].startswith("placebo     80.0 [")
    assert lines[3].endswith("  -")
    assert lines[5].split() == ["chance", "25.0", "25.0"]
    assert lines[6] == "200 test videos; [..] is the 95 % interval over them, for one trained network."
    assert lines[7] == "2 unreadable test videos, counted as wrong"  # holds for all, said once
    assert lines[8] == "placebo: odd"
    assert lines[0].index("probe") == lines[2].index("80.0") == lines[3].index("80.0")
    assert max(map(len, lines[:6])) <= 80


def test_an_empty_table():
    assert render_table([]) == "no results"
