"""What is written as text with many places to fill in: pages, drawings, cards. Each is a file of this folder."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, /, **values: Any) -> str:
    """The template with its places filled in. In HTML and SVG every value stays text, whatever stands in it.

    A name that a template uses and nobody gives is an error.
    """
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import (  # here: it takes a tenth of a second
        Environment,
        PackageLoader,
        StrictUndefined,
        select_autoescape,
    )

    return Environment(
        loader=PackageLoader("ssvid", "templates"),
        autoescape=select_autoescape(("html", "svg")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """What no page may hold becomes a mark."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in value)


def data_uri(kind: str, content: bytes) -> str:
    """A file as an address that holds it all, for pages that load nothing. kind: such as "image/webp"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
