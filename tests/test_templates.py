"""Templates: what is filled in stays text, nothing is forgotten, and every file of the folder is a template."""

from pathlib import Path

import jinja2
import pytest

import ssvid.templates
from ssvid.templates import render

FILES = sorted(
    path.name for path in Path(ssvid.templates.__file__).parent.iterdir() if path.suffix not in (".py", ".pyc", "")
)


@pytest.mark.parametrize("name", FILES)
def test_every_template_can_be_read(name):
    assert ssvid.templates._environment().get_template(name)


def test_there_are_some():
    assert {"run.html", "neighbors.html", "confusion.svg", "curves.svg", "model_card.md"} <= set(FILES)


def test_what_looks_like_markup_stays_text_and_what_no_page_may_hold_becomes_a_mark():
    page = render("base.html", title='</title><script>"\x00\u202e')
    assert "<title>&lt;/title&gt;&lt;script&gt;&#34;\ufffd\ufffd</title>" in page
    assert "<script" not in page


def test_a_name_that_nobody_gives_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("base.html")
