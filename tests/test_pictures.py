"""Tiles, rows, sheets and words: sizes, colors, and what stands where."""

import numpy as np
import torch

from ssvid.pictures import LIGHT, outlined, row, sheet, tiles, voc_colors, words


def test_tiles_are_squares_of_the_same_color_whatever_the_frames_are_made_of():
    bytes_NCHW = torch.tensor([[200, 30, 90], [0, 255, 7]], dtype=torch.uint8)[:, :, None, None].expand(2, 3, 10, 16)
    for frames in (bytes_NCHW, bytes_NCHW.float() / 255):
        first, second = tiles(frames, 6)
        assert first.dtype == np.uint8 and first.shape == second.shape == (6, 6, 3)
        assert (first == (200, 30, 90)).all() and (second == (0, 255, 7)).all()
    assert tiles(torch.full((1, 3, 4, 4), 1.7), 4)[0].max() == 255


def test_a_row_has_its_gaps_and_a_sheet_is_as_wide_as_its_widest_row():
    white, gray = np.full((4, 4, 3), 255, np.uint8), np.full((4, 6, 3), 90, np.uint8)
    line = row([white, gray], gap_px=2)
    assert line.shape == (6, 14, 3)
    assert (line[:4, :4] == 255).all() and (line[:4, 6:12] == 90).all()
    assert not line[:, 4:6].any() and not line[4:].any()
    both = sheet([line, row([white])])
    assert both.shape == (10, 14, 3)
    assert (both[6:, :4] == 255).all() and not both[6:, 4:].any()


def test_words_and_outlines_are_drawn():
    field = words([("in order", LIGHT), ("not", (250, 0, 0))], 100, 60)
    assert field.shape == (60, 100, 3)
    upper, lower = field[:30].reshape(-1, 3).max(axis=0), field[30:].reshape(-1, 3).astype(int)
    assert upper[1] > 150 and (lower[:, 0] - lower[:, 1]).max() > 150
    marked = outlined(np.zeros((20, 20, 3), np.uint8), [(4, 4), (16, 4), (16, 16), (4, 16)], (9, 200, 9))
    assert (marked[4, 6:15] == (9, 200, 9)).all() and not marked[10, 10].any()
    assert (marked[6, 6] == (9, 200, 9)).all(), "the dot on the first corner"


def test_colors_of_ids_are_those_of_pascal_voc():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    published += [(128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128)]
    assert voc_colors()[: len(published)].tolist() == [list(color) for color in published]
    assert tuple(voc_colors()[255]) == (224, 224, 192) and len({tuple(color) for color in voc_colors()}) == 256
