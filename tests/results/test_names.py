"""Names in pictures: every class is told from every other, whatever its script, and both pictures hold all of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
from PIL import Image

from ssvid.evals.neighbors.page import TILE_PX, Shown, neighbor_picture
from ssvid.results.confusion import draw_confusion
from ssvid.results.names import short_names, visible
from tests.results.test_table import row

# fmt: off
NAMES = [
    *("漢", "字", "漢字", "Прыжок", "Бегом", "Ходьба", "한국어", "한글", "café", "cafè", "हिन्दी", "مرحبا", "ab", "a\u200bb"),
    *("😀", "😁", "?", "??", "<b>", "&lt;b>", "a b", "a\u00a0b"),
]
# fmt: on


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_no_two_names_look_alike() -> None:
    short = short_names(NAMES, 24)
    for one, other in combinations(NAMES, 2):
        assert short[one] != short[other], f"{one!r} and {other!r}"
    assert all(name.isprintable() for name in short.values())


def test_what_is_invisible_is_written_as_its_number() -> None:
    assert visible("run") == "run" and visible("Прыжок 漢") == "Прыжок 漢"
    assert visible("a\nb\u202e") == "a\\nb\\u202e"
    assert visible("cafe\u0301") == visible("café"), "two forms of one letter are one name"


def test_long_names_keep_both_ends_and_stay_apart() -> None:
    names = ["pushing something from left to right", "pushing something from right to left", "x" * 50, "x" * 51]
    short = short_names(names, 24)
    assert short[names[0]] == "pushing som...t to right"
    assert short[names[1]] == "pushing som...ht to left"
    assert (short[names[2]], short[names[3]]) == ("xxxxxxxxxxx...xxxxxxx #1", "xxxxxxxxxxx...xxxxxxx #2")
    assert max(map(len, short.values())) == 24


def test_both_pictures_write_every_class_in_its_own_way() -> None:
    shown = texts(draw_confusion("title", NAMES, np.eye(len(NAMES), dtype=np.int64)))
    assert shown[0] == "title"
    for name in short_names(NAMES, 40).values():
        assert shown.count(name) >= 2, "of a row and of a column"
    rows = [row("pretrained", "11")]
    rows[0].context.update(
        data={"train": {"num_videos": 1}, "test": {"num_videos": 1, "num_classes": 2}}, protocol={"id": "x"}
    )
    rows[0].context.update(backbone={"name": "tiny3d"}, weights_sha256="0" * 64)
    line = [Shown(Image.new("RGB", TILE_PX), name, "v") for name in NAMES]
    assert set(short_names(NAMES, 24).values()) <= set(texts(neighbor_picture([line], rows)))
