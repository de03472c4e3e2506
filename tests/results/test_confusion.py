"""Class by class: what is right is counted, and shares of right views are added as shares."""

import xml.etree.ElementTree as ET

import numpy as np

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.results.confusion import draw_confusion, per_class
from ssvid.results.rows import ResultRow


def test_shares_of_right_views_are_added_as_shares():
    """Four videos of one class with .9, .8, .85 and .75 of their views right are 3.3 of 4, and not none."""
    videos = [
        VideoRow(path=f"{i}.mp4", num_frames=9, fps=25.0, height=8, width=8, label="a" if i < 4 else "b")
        for i in range(6)
    ]
    ids = tuple(video.path for video in videos)
    shares, right = np.array([0.9, 0.8, 0.85, 0.75, 1.0, 0.0]), np.array([1, 1, 0, 1, 1, 0], bool)
    rows = [
        ResultRow.counted("pretrained", metric, values, 0.5, ids, ids, {})
        for metric, values in (("finetune_clip_top1", shares), ("finetune_top1", right))
    ]
    found = per_class(rows, Manifest("/videos", tuple(videos)))["pretrained"]
    np.testing.assert_allclose(found["finetune_clip_top1"]["a"], [3.3, 4])
    assert found["finetune_clip_top1"]["b"] == [1.0, 2]
    assert found["finetune_top1"] == {"a": [3, 4], "b": [1, 2]}
    for metric, row in (("finetune_clip_top1", rows[0]), ("finetune_top1", rows[1])):
        assert sum(right for right, _ in found[metric].values()) / 6 == row.value


def drawn(columns: list[str], counts: np.ndarray) -> tuple[ET.Element, list[ET.Element]]:
    """The drawing, and its cells."""
    picture = ET.fromstring(draw_confusion("who <took> what", columns, counts))
    return picture, [rect for rect in picture.iter() if rect.get("class") in ("yes", "no")]


def test_a_cell_stands_where_it_was_taken_for_and_says_how_often():
    """Of 4 videos of b one was taken for a."""
    picture, cells = drawn(["a", "b"], np.array([[5, 0], [1, 3]]))
    assert [(cell.get("class"), cell.get("x"), cell.get("y")) for cell in cells] == [
        ("yes", "0", "0"), ("no", "0", "44"), ("yes", "44", "44"),
    ]  # fmt: skip
    assert [float(cell.get("fill-opacity")) for cell in cells] == [1.0, 0.5, 0.87]
    assert cells[1][0].text == "b as a: 1 of 4"
    written = [text.text for text in picture.iter() if text.tag.endswith("}text")]
    assert written == ["who <took> what", "100", "25", "75", "a", "b", "a", "b"]


def test_many_classes_are_small_cells_without_numbers_and_only_what_occurs_is_drawn():
    names = [f"class {i:03}" for i in range(400)]
    counts = np.eye(400, dtype=np.int64) * 20
    counts[7, 300] = 1
    picture, cells = drawn(names, counts)
    assert len(cells) == 401
    assert (int(picture.get("width")), int(picture.get("height"))) < (3500, 3500)
    written = [text.text for text in picture.iter() if text.tag.endswith("}text")]
    assert written[1:] == names[::2] * 2, "lines are lower than letters"
