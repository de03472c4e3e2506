"""Columns of text for a terminal: signs that are twice as wide are counted as such."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def width_of(text: str) -> int:
    """How many signs wide it stands on a terminal."""
    from rich.cells import cell_len  # here: help is printed without it

    return cell_len(text)


def aligned(lines: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Each line of cells as one line of text, its columns two blanks apart. right: columns that end below one another."""
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            _padded(cell, width, i in right) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def rule(lines: Sequence[str]) -> str:
    """A line as wide as the widest of the others."""
    return "-" * max(map(width_of, lines))


def _padded(cell: str, width: int, to_the_right: bool) -> str:
    blanks = " " * (width - width_of(cell))
    return blanks + cell if to_the_right else cell + blanks
