"""Columns of text: aligned to either side, and wide signs are wide."""

from rich.cells import cell_len

from ssvid.columns import aligned, rule


def test_columns_are_two_blanks_apart_and_nothing_trails():
    assert aligned([["a", "1", "x"], ["long", "23", ""]]) == ["a     1   x", "long  23"]
    assert aligned([["a", "1", "x"], ["long", "23", ""]], right=(1,)) == ["a      1  x", "long  23"]
    assert aligned([]) == []


def test_a_sign_that_is_twice_as_wide_counts_twice():
    lines = aligned([["漢字", "1"], ["four", "2"], ["e\u0301", "3"]])
    assert [cell_len(line) for line in lines] == [7, 7, 7]
    assert rule(lines) == "-" * 7
