"""Overlays, contours, trails and sheets: what is painted where, by hand-made masks and by an independent library."""

import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from ssvid.evals.label_propagation.drawing import (
    CAPTION_PX,
    COLORS,
    captioned,
    color_of,
    contours,
    evened,
    key_frame_sheet,
    key_frames,
    line_px,
    middle_of,
    overlay,
    shrunk,
    side_by_side,
    trails,
)

GRAY = np.full((40, 60, 3), 120, np.uint8)


def two_objects():
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 5:25] = 1
    labels[20:35, 25:50] = 2
    return labels


def test_the_contour_of_a_rectangle_is_its_rim():
    labels = np.zeros((8, 9), np.uint8)
    labels[2:6, 2:7] = 3
    rim = labels > 0
    rim[3:5, 3:6] = False
    np.testing.assert_array_equal(contours(labels), rim)
    assert contours(labels, 2).sum() == 20, "two steps from the end cover all of a 4 x 5 rectangle"


def test_contours_are_the_inner_boundaries_of_scikit_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (30, 41), dtype=np.uint8).repeat(3, axis=0).repeat(2, axis=1)
    expected = find_boundaries(labels, connectivity=1, mode="inner", background=0)
    np.testing.assert_array_equal(contours(labels), expected)


def test_the_border_of_the_picture_is_no_end_of_an_object():
    assert not contours(np.ones((5, 5), np.uint8)).any()
    assert not contours(np.zeros((5, 5), np.uint8)).any()


def test_an_overlay_fills_outlines_and_leaves_the_rest():
    labels = two_objects()
    drawn = overlay(GRAY, labels, fill=0.5, numbers=False)
    for number in (1, 2):
        inside = (labels == number) & ~contours(labels)
        blended = np.round(0.5 * 120 + 0.5 * np.array(COLORS[number - 1]))
        np.testing.assert_allclose(drawn[inside], np.broadcast_to(blended, drawn[inside].shape), atol=1)
        assert (drawn[(labels == number) & contours(labels)] == COLORS[number - 1]).all()
    assert (drawn[:4] == 120).all() and (drawn[:, 55:] == 120).all()
    assert (drawn[10, 4] < 30).all(), "a dark line around the object"
    assert (GRAY == 120).all(), "the frame itself is not painted"


def test_numbers_stand_inside_their_objects_where_there_are_several():
    labels = two_objects()
    plain, numbered = overlay(GRAY, labels, numbers=False), overlay(GRAY, labels)
    changed = (plain != numbered).any(axis=2)
    assert (changed & (labels == 1)).sum() > 10 and (changed & (labels == 2)).sum() > 10
    assert not changed[36:].any() and not changed[:, 52:].any()
    one = np.where(labels == 1, labels, 0)
    np.testing.assert_array_equal(overlay(GRAY, one), overlay(GRAY, one, numbers=False))


def test_void_is_gray_and_has_no_number():
    labels = two_objects()
    labels[labels == 2] = 255
    drawn = overlay(np.zeros_like(GRAY), labels)
    colors = drawn[labels == 255].astype(int)
    assert (colors.max(axis=1) - colors.min(axis=1)).max() == 0 and colors.min() > 0
    np.testing.assert_array_equal(drawn, overlay(np.zeros_like(GRAY), labels, numbers=False))


def test_no_object_leaves_the_frame_and_another_size_is_refused():
    np.testing.assert_array_equal(overlay(GRAY, np.zeros((40, 60), np.uint8)), GRAY)
    with pytest.raises(ValueError, match="not of one picture"):
        overlay(GRAY, np.zeros((40, 61), np.uint8))


def test_the_middle_of_a_horseshoe_lies_in_it():
    shape = np.zeros((30, 30), bool)
    shape[3:27, 3:9] = shape[3:27, 20:26] = shape[20:27, 3:26] = True
    x, y = middle_of(shape)
    assert shape[y, x] and shape[y - 2 : y + 3, x - 2 : x + 3].all()
    block = np.zeros((9, 31), bool)
    block[2:7, 5:26] = True
    assert middle_of(block) == (15, 4)
    single = np.zeros((3, 3), bool)
    single[2, 0] = True
    assert middle_of(single) == (0, 2)


def test_colors_of_neighbors_stay_apart_for_people_who_see_two_primaries():
    # Linear RGB to what is seen without long or without middle cones: Vienot, Brettel and Mollon (1999).
    protan = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    deutan = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    linear = (np.array(COLORS) / 255) ** 2.2
    for seen in (protan, deutan):
        encoded = 255 * np.clip(linear @ seen.T, 0, 1) ** (1 / 2.2)
        steps = np.linalg.norm(np.diff(encoded, axis=0), axis=1)
        assert steps.min() > 45, "two objects that follow each other in the list are told apart"
    assert [color_of(number) for number in (1, 8)] == [COLORS[0], COLORS[0]]


def test_a_trail_follows_its_point_and_breaks_where_it_was_hidden():
    frame = np.zeros((100, 100, 3), np.uint8)
    points = np.stack([np.linspace(10, 90, 9), np.full(9, 50.0)], axis=1)[:, None]
    visible = np.ones((9, 1), bool)
    whole = trails(frame, points, visible)
    assert all(whole[50, x].any() for x in range(11, 90))
    assert not whole[:44].any() and not whole[57:].any()
    visible[4] = False
    broken = trails(frame, points, visible)
    assert not broken[50, 45:55].any() and broken[50, 20].any() and broken[50, 75].any()
    short = trails(frame, points, visible | True, trail_frames=2)
    assert not short[50, 10:65].any() and short[50, 75].any()


def test_a_hidden_point_is_a_ring_and_one_outside_or_unknown_is_not_drawn():
    frame = np.full((60, 60, 3), 255, np.uint8)
    seen = trails(frame, np.array([[[30.0, 30.0]]]), np.array([[True]]))
    hidden = trails(frame, np.array([[[30.0, 30.0]]]), np.array([[False]]))
    assert tuple(seen[30, 30]) == COLORS[0]
    assert (hidden[30, 30] == 255).all() and (hidden[26:35, 26:35] != 255).any()
    for place in ((-5.0, 10.0), (10.0, 60.0), (np.nan, np.nan)):
        away = trails(frame, np.array([[place]]), np.array([[True]]))
        np.testing.assert_array_equal(away, frame)


def test_key_frames_are_spread_and_hold_those_that_were_given():
    assert key_frames(11, 3) == [0, 5, 10]
    assert key_frames(2, 8) == [0, 1] and key_frames(1, 8) == [0]
    assert key_frames(11, 3, given=(4, 0)) == [0, 4, 5, 10]


def test_sheets_and_pairs_hold_every_picture_under_its_words():
    frames = [np.full((30, 50, 3), value, np.uint8) for value in (60, 120, 180, 240, 90)]
    drawn = key_frame_sheet([(f"frame {i}", frame) for i, frame in enumerate(frames)], columns=3, gap_px=4)
    assert drawn.shape == (2 * (34 + CAPTION_PX) - 4, 3 * 54 - 4, 3)
    assert (drawn[CAPTION_PX:][:30, 54:104] == 120).all() and (drawn[-30:, 54:104] == 90).all()
    pair = side_by_side({"truth": frames[0], "found": frames[3]})
    assert pair.shape == (30 + CAPTION_PX, 104, 3)
    assert (pair[CAPTION_PX:, :50] == 60).all() and (pair[CAPTION_PX:, 54:] == 240).all()
    assert captioned(frames[0], "frame 0")[:CAPTION_PX].max() > 150, "words are light on dark"


def test_sizes():
    assert evened(np.zeros((33, 47, 3), np.uint8)).shape == (34, 48, 3)
    assert evened(GRAY) is GRAY
    odd = np.arange(9, dtype=np.uint8).reshape(3, 3, 1).repeat(3, axis=2)
    assert evened(odd)[:, :, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [6, 7, 8, 8], [6, 7, 8, 8]]
    assert shrunk(GRAY, 30).shape == (20, 30, 3) and shrunk(GRAY, 100).shape == GRAY.shape
    assert [line_px(*size) for size in ((64, 64), (480, 854), (1080, 1920), (2160, 3840))] == [1, 2, 4, 9]
