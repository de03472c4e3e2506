"""Curves: what is drawn where, and that it stays readable and true."""

import math
import xml.etree.ElementTree as ET

import pytest

from ssvid.results.curves import Panel, describe, draw_panel, panels_of, points_of, thinned, ticks

LOG = [
    {"step": 0, "epoch": 0, "perf/clips_per_s": 5.0},
    {"step": 4, "epoch": 0, "train/loss": 2.0, "train/accuracy": 0.5},
    {"step": 4, "epoch": 0, "val/loss": 1.5, "val/accuracy": 0.75, "val/num_videos": 20},
    {"step": 9, "epoch": 1, "train/loss": "nan", "train/accuracy": 1.0},
]


def drawn(panel, tag):
    root = ET.fromstring(draw_panel(panel, "x"))
    return [element for element in root.iter() if element.tag.endswith(tag)]


def test_points_are_steps_done_and_values():
    assert points_of(LOG, "train/accuracy") == [(5.0, 0.5), (10.0, 1.0)]
    assert points_of(LOG, "val/loss") == [(5.0, 1.5)]


def test_train_and_val_share_a_panel_and_chance_is_a_level():
    panels = {panel.title: panel for panel in panels_of(LOG, {"accuracy": 0.5})}
    assert list(panels) == ["loss", "accuracy", "perf/clips_per_s"]
    assert list(panels["accuracy"].lines) == ["train/accuracy", "val/accuracy"]
    assert panels["accuracy"].levels == {"chance": 0.5}
    assert panels["loss"].levels == {}
    assert {panel.steps for panel in panels.values()} == {10.0}


def test_what_a_guess_scores_is_a_level_beside_what_it_is_a_guess_of():
    """The same held-out clips each time give one number; a curve that happens not to move stays one."""
    log = [
        {"step": i, "epoch": i, "val/auc": 0.5, "val/difference_auc": 0.62 + 1e-8 * i, "val_ood/difference_auc": 0.7,
         "val/near_auc": 0.5 + 0.1 * i, "val/lone_share": 0.3}
        for i in range(3)
    ]  # fmt: skip
    panels = {panel.title: panel for panel in panels_of(log, {"auc": 0.5, "difference_auc": 0.5})}
    assert list(panels) == ["auc", "near_auc", "lone_share"]
    levels = {"chance": 0.5, "val/difference_auc": pytest.approx(0.62), "val_ood/difference_auc": 0.7}
    assert panels["auc"].levels == levels
    assert list(panels["auc"].lines) == ["val/auc"]
    assert "val/difference_auc: 0.62" in describe(panels["auc"])
    once = {panel.title: panel for panel in panels_of(log[:1], {})}
    assert "difference_auc" in once, "from one measurement nobody knows whether it moves"


def test_a_point_lies_where_it_belongs():
    """Two points and a level between them: the level's height is the mean of the points' heights."""
    panel = Panel("accuracy", {"val": [(0, 0.2), (10, 0.8)]}, {"chance": 0.5})
    (line,) = drawn(panel, "polyline")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.get("points").split())
    (chance,) = [
        element for element in drawn(panel, "line") if element.get("class") == "chance" and element.get("x1") == "52"
    ]
    assert float(chance.get("y1")) == pytest.approx((y0 + y1) / 2, abs=0.11)
    (frame,) = drawn(panel, "rect")
    left, width = float(frame.get("x")), float(frame.get("width"))
    assert (x0, x1) == pytest.approx((left, left + width))
    assert y1 < y0  # up is more


def test_a_line_breaks_where_a_value_is_no_number():
    points = [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, math.inf), (6, 2.0)]
    lines = drawn(Panel("loss", {"train/loss": points}), "polyline")
    assert [len(line.get("points").split()) for line in lines] == [2, 1, 1]
    assert panels_of([{"step": 0, "epoch": 0, "train/loss": "nan"}], {}) == []


def test_lines_differ_in_more_than_color():
    panel = Panel(
        "loss", {name: [(0, 1.0), (1, i)] for i, name in enumerate(["train/loss", "val/loss", "val_ood/loss"])}
    )
    assert len({line.get("stroke-dasharray") for line in drawn(panel, "polyline")}) == 3


def test_long_lines_keep_their_peaks():
    points = [(float(i), 1.0) for i in range(10_000)]
    points[7_001] = (7_001.0, 9.0)
    points[3_333] = (3_333.0, -9.0)
    kept = thinned(points)
    assert len(kept) < 500
    assert {(7_001.0, 9.0), (3_333.0, -9.0)} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.501, 0.502), (-3, 1e6), (1e-9, 3e-9)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in found)
    steps = {
        round((b - a) / 10 ** math.floor(math.log10(b - a) + 1e-6), 6) for a, b in zip(found, found[1:], strict=False)
    }
    assert steps <= {1.0, 2.0, 5.0, 10.0}
    assert ticks(0, 3, least=1.0) == [0, 1, 2, 3]


def test_a_flat_line_and_a_single_point_can_be_drawn():
    for points in ([(0, 0.0)], [(0, 5.0), (3, 5.0)]):
        (line,) = drawn(Panel("x", {"val/x": points}), "polyline")
        assert "nan" not in line.get("points")


def test_the_words_say_what_the_drawing_shows():
    panel = Panel("accuracy", {"val/accuracy": [(1, 0.5), (2, 0.9), (3, math.nan), (4, 0.7)]}, {"chance": 0.5})
    text = "val/accuracy: 0.5 at step 1, 0.7 at step 4, lowest 0.5, highest 0.9; chance: 0.5"
    assert describe(panel) == text
    (told,) = drawn(panel, "desc")
    assert told.text == text


def test_names_stay_text():
    panel = Panel("<b>&", {'"<script>': [(0, 1.0), (1, 2.0)]})
    assert [element.text for element in drawn(panel, "title")] == ["<b>&"]
    assert '"<script>' in [element.text for element in drawn(panel, "text")]
