"""Names in pictures: short enough to stand there, and never two that look alike."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable


def visible(text: str) -> str:
    """The text with every sign that cannot be seen written as its number: ``\\\\u200b``."""
    signs = unicodedata.normalize("NFC", text)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in signs)


def short_names(names: Iterable[str], most: int) -> dict[str, str]:
    """Each name as it is drawn, at most so many signs long; no two are drawn alike.

    The middle of a long name is left out, because names tend to differ at their ends. Where two would still be the same,
    they are numbered.
    """
    shortened = {name: _shortened(visible(name), most) for name in dict.fromkeys(names)}
    taken = Counter(shortened.values())
    numbers: Counter[str] = Counter()
    for name, short in shortened.items():
        if taken[short] > 1:
            numbers[short] += 1
            mark = f" #{numbers[short]}"
            shortened[name] = f"{short[: most - len(mark)]}{mark}"
    return shortened


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"
