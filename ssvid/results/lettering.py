"""Names in pictures: any script in which a font of this machine can write, and never two names that look alike."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from PIL import ImageFont

SIZE_PX = 10
# Fonts by the names of their files, where Pillow looks for them, after its own: wide ones first, then those of single scripts.
# fmt: off
_FONT_FILES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "FreeSans.ttf", "LiberationSans-Regular.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "NotoSansJP-Regular.ttf", "NotoSansSC-Regular.ttf"),
    *("DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "wqy-zenhei.ttc", "wqy-microhei.ttc", "ipag.ttf", "ipaexg.ttf"),
    *("NanumGothic.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf", "msgothic.ttc", "msyh.ttc"),
    *("malgun.ttf", "meiryo.ttc", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "unifont.ttf"),
)
# fmt: on


def font_for(text: str) -> Any:
    """The first font that has every sign of the text, else the one that has the most."""
    own = _own_font()
    if _is_plain(text) or not (missing := _missing(own, text)):
        return own
    best, fewest = own, missing
    for file in _FONT_FILES:
        font = _font(file)
        if font is not None and (left := _missing(font, text)) < fewest:
            best, fewest = font, left
        if not fewest:
            break
    return best


def drawable(text: str) -> str:
    """The text with every sign that no font here can draw written as its number: ``\\\\u6f22``."""
    text = unicodedata.normalize("NFC", text)
    font = font_for(text)
    return "".join(sign if _has(font, sign) else _escaped(sign) for sign in text)


def short_names(names: Iterable[str], most: int) -> dict[str, str]:
    """Each name as it is drawn, at most so many signs long; no two are drawn alike.

    The middle of a long name is left out, because names tend to differ at their ends. Where two would still be the same,
    they are numbered.
    """
    shortened = {name: _shortened(drawable(name), most) for name in dict.fromkeys(names)}
    taken = Counter(shortened.values())
    numbers: Counter[str] = Counter()
    for name, short in shortened.items():
        if taken[short] > 1:
            numbers[short] += 1
            mark = f" #{numbers[short]}"
            shortened[name] = f"{short[: most - len(mark)]}{mark}"
    return shortened


def write(draw: Any, place: tuple[int, int], text: str, ink: tuple[int, int, int]) -> None:
    """Write one line into a picture, from its upper left corner. text: as ``drawable`` or ``short_names`` give it."""
    draw.text(place, text, fill=ink, font=font_for(text))


def width_px(text: str) -> int:
    """How wide the text is drawn."""
    return round(font_for(text).getlength(text))


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if ord(sign) > 255 else f"\\x{ord(sign):02x}"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _missing(font: Any, text: str) -> int:
    return sum(not _has(font, sign) for sign in set(text))


@lru_cache(maxsize=10_000)
def _has(font: Any, sign: str) -> bool:
    """Whether the font draws the sign as something of its own, and not as the box that stands for all that it lacks."""
    if not sign.isprintable():
        return False
    return sign.isspace() or _glyph(font, sign) != _glyph(font, "\U0010fffe")


@lru_cache(maxsize=10_000)
def _glyph(font: Any, sign: str) -> bytes:
    """The sign's dots, without the shaping that would put other signs beside it."""
    return bytes(_unshaped(font).getmask(sign))


@lru_cache(maxsize=64)
def _unshaped(font: Any) -> Any:
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC) if isinstance(font, ImageFont.FreeTypeFont) else font


@lru_cache(maxsize=1)
def _own_font() -> Any:
    return ImageFont.load_default(SIZE_PX)


@lru_cache(maxsize=64)
def _font(file: str) -> Any:
    try:
        return ImageFont.truetype(file, SIZE_PX)
    except OSError:
        return None
