"""Time maps against rows written down by hand."""

import numpy as np
import pytest

from ssvid.errors import SsvidError
from ssvid.layers.time_maps import ABSENT, delayed, lasting, parse_time_map, stretched, synchronized


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("reverse", [4, 3, 2, 1, 0]),
        ("3", [3]),
        ("1..3", [1, 2, 3]),
        ("3..1", [3, 2, 1]),
        ("0..2x2", [0, 0, 1, 1, 2, 2]),
        ("2..0x2", [2, 2, 1, 1, 0, 0]),
        ("0..3x1.5", [0, 0, 1, 2, 2, 3]),
        ("0..3x0.5", [0, 2]),
        ("0..3x.5", [0, 2]),
        ("0x0.1", [0]),
        ("0..2x2,hold:3", [0, 0, 1, 1, 2, 2, 2, 2, 2]),
        ("none:2, 0..1", [ABSENT, ABSENT, 0, 1]),
        ("4,none:1,hold:1", [4, ABSENT, ABSENT]),
        ("allx2,reverse", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 3, 2, 1, 0]),
    ],
)
def test_the_short_form(text, expected):
    assert parse_time_map(text, 5).tolist() == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0..5", "names frame 5; there are 5, 0 to 4"),
        ("hold:3", "no frame yet to hold. Name one before it: 0,hold:3"),
        ("0..2y2", "'0..2y2' in it, which is no part"),
        ("", "'' in it"),
        ("-1", "'-1' in it"),
        ("0..2x0", "must be above 0"),
        ("allx100000", "at most 100000 pictures"),
        ("0,hold:999999999999", "more than 100000 pictures"),
    ],
)
def test_what_is_no_time_map(text, words):
    with pytest.raises(SsvidError, match=words):
        parse_time_map(text, 5)


def test_the_way_out_works():
    assert parse_time_map("0,hold:3", 5).tolist() == [0, 0, 0, 0]


def test_stretched_by_whole_factors_there_and_back():
    run = np.arange(7)
    for factor in (1, 2, 3, 5):
        assert (stretched(run, factor) == np.repeat(run, factor)).all()
        assert (stretched(np.repeat(run, factor), 1 / factor) == run).all()


def test_later_and_earlier():
    run = np.arange(5)
    assert delayed(run, 2).tolist() == [0, 0, 0, 1, 2]
    assert delayed(run, -2).tolist() == [2, 3, 4, 4, 4]
    assert delayed(run, 0).tolist() == [0, 1, 2, 3, 4]
    assert delayed(run, 99).tolist() == [0] * 5


def test_two_jumps_at_one_moment():
    moved = synchronized(np.arange(10), frame=7, picture=4)
    assert moved[4] == 7
    assert synchronized(parse_time_map("allx2", 5), frame=1, picture=4)[4] == 1
    with pytest.raises(SsvidError, match="frame 9 is never shown"):
        synchronized(np.arange(5), frame=9, picture=0)


def test_cut_or_held_to_a_length():
    assert lasting(np.array([3, 4, 5]), 5).tolist() == [3, 4, 5, 5, 5]
    assert lasting(np.array([3, 4, 5]), 2).tolist() == [3, 4]
