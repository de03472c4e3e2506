"""What all pages of HTML have in common: a head that lets nothing run or load, and one style for light and dark."""

from __future__ import annotations

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1e1e1e; --soft: #595959; --paper: #fff; --edge: #d0d4d9; --shade: #f4f6f8; --mark: #0b5cad; --warn: #8a3b00; --right: #1a7f37; --wrong: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a9b1ba; --paper: #16181c; --edge: #3a4048; --shade: #20242a; --mark: #7cb8f2; --warn: #ffb077; --right: #56d364; --wrong: #ff7b72; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid var(--edge); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } a { color: var(--mark); } .soft, small, caption, figcaption { color: var(--soft); }
.wide { overflow-x: auto; } .wide:focus-visible, pre:focus-visible { outline: 3px solid var(--mark); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } caption { text-align: left; padding: .3rem 0; white-space: nowrap; }
th, td { text-align: right; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--edge); }
"""


def page_head(title: str, style: str) -> str:
    """Everything before the body. title: HTML. style: more of it."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}{style}</style>\n</head>\n'
    )
