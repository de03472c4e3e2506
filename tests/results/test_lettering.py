"""Names in pictures: every class is told from every other, whatever its script and whatever fonts this machine has."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssvid.evals.neighbors.page import TILE_PX, Shown, neighbor_picture
from ssvid.results import lettering
from ssvid.results.confusion import draw_confusion
from ssvid.results.lettering import drawable, font_for, short_names, width_px, write
from tests.results.test_table import row

NAMES = [
    *(
        "漢",
        "字",
        "漢字",
        "Прыжок",
        "Бегом",
        "Ходьба",
        "한국어",
        "한글",
        "café",
        "cafè",
        "हिन्दी",
        "مرحبا",
        "ab",
        "a\u200bb",
    ),
    *("😀", "😁", "?", "??", "\\u6f22"),
]  # the last would be that of the first where no font has it


@pytest.fixture(params=["fonts of this machine", "no font but Pillow's own"], autouse=True)
def fonts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param.startswith("no"):
        monkeypatch.setattr(lettering, "_FONT_FILES", ())


def drawn(text: str) -> bytes:
    picture = Image.new("L", (300, 16))
    write(ImageDraw.Draw(picture), (0, 0), text, 255)  # type: ignore[arg-type]
    return picture.tobytes()


def test_no_two_names_look_alike() -> None:
    short = short_names(NAMES, 24)
    for one, other in combinations(NAMES, 2):
        assert drawn(short[one]) != drawn(short[other]), f"{one!r} and {other!r}"


def test_what_no_font_has_is_written_as_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawable("run") == "run"
    assert drawable("a\nb\u202e") == "a\\x0ab\\u202e", "what is invisible is shown"
    monkeypatch.setattr(lettering, "_FONT_FILES", ())
    assert drawable("漢a") == "\\u6f22a"
    assert drawable("Б") == "\\u0411"
    assert drawable("cafe\u0301") == drawable("café"), "two forms of one letter are one name"


def test_a_font_that_has_the_signs_is_taken() -> None:
    """DejaVu, where it is installed, has Cyrillic and no Chinese."""
    if lettering._FONT_FILES and lettering._font("DejaVuSans.ttf") is not None:
        assert drawable("Прыжок") == "Прыжок"
        assert font_for("Прыжок").getname()[0] == "DejaVu Sans"
        assert width_px("Прыжок") > 20


def test_long_names_keep_both_ends_and_stay_apart() -> None:
    names = ["pushing something from left to right", "pushing something from right to left", "x" * 50, "x" * 51]
    short = short_names(names, 24)
    assert short[names[0]] == "pushing som...t to right"
    assert short[names[1]] == "pushing som...ht to left"
    assert (short[names[2]], short[names[3]]) == ("xxxxxxxxxxx...xxxxxxx #1", "xxxxxxxxxxx...xxxxxxx #2")
    assert max(map(len, short.values())) == 24


def test_both_pictures_write_every_class_in_its_own_way() -> None:
    counts = np.eye(2, dtype=np.int64)
    pictures = [np.asarray(draw_confusion("title", names, counts)) for names in (["漢", "字"], ["字", "漢"])]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any(), "the order of the classes is not seen"
    tile = Image.new("RGB", TILE_PX)
    rows = [row("pretrained", "11")]
    rows[0].context.update(
        data={"train": {"num_videos": 1}, "test": {"num_videos": 1, "num_classes": 2}}, protocol={"id": "x"}
    )
    rows[0].context.update(backbone={"name": "tiny3d"}, weights_sha256="0" * 64)
    sheets = [np.asarray(neighbor_picture([[Shown(tile, name, "v")]], rows)) for name in ("漢", "字")]
    assert (sheets[0] != sheets[1]).any()
