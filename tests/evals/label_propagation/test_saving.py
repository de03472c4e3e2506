"""Masks as the DAVIS evaluator reads them, tracks as a table; nothing half written and nothing overwritten."""

import csv

import numpy as np
import pytest
from PIL import Image

from ssvid.errors import DataError
from ssvid.evals.label_propagation.saving import COLUMNS, label_folder, write_labels, write_tracks


def masks(count=3):
    rng = np.random.default_rng(1)
    return [rng.choice(np.array([0, 1, 2, 7, 255], np.uint8), (11, 13)) for _ in range(count)]


def test_a_folder_of_masks_reads_back_as_ids_under_their_palette(tmp_path):
    with label_folder(tmp_path / "out" / "masks") as folder:
        for labels in masks():
            folder.add(labels)
    files = sorted((tmp_path / "out" / "masks").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    for file, labels in zip(files, masks(), strict=True):
        with Image.open(file) as picture:
            assert picture.mode == "P" and picture.size == (13, 11)
            np.testing.assert_array_equal(np.asarray(picture), labels)
            assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
            assert picture.getpalette()[-3:] == [224, 224, 192]


def test_another_palette_is_kept(tmp_path):
    palette = bytes(range(256)) * 3
    write_labels(tmp_path / "a.png", masks(1)[0], palette)
    with Image.open(tmp_path / "a.png") as picture:
        assert bytes(picture.getpalette()) == palette


@pytest.mark.parametrize("labels", [np.zeros((3, 3), np.int64), np.zeros((3, 3, 3), np.uint8)], ids=["type", "shape"])
def test_labels_that_a_png_of_8_bits_cannot_hold_are_refused(tmp_path, labels):
    with pytest.raises(ValueError, match="must be uint8 HW"):
        write_labels(tmp_path / "a.png", labels)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_broke_off_leaves_nothing(tmp_path):
    def break_off():
        with label_folder(tmp_path / "masks") as folder:
            folder.add(masks(1)[0])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        break_off()
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="Nothing is overwritten"), label_folder(tmp_path / "masks"):
        pytest.fail("the block is not entered")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["mine.txt"]


def test_tracks_are_a_table_with_a_line_for_each_point_and_frame(tmp_path):
    points = np.array([[[1.5, 2.25], [np.nan, np.nan]], [[3.0, 4.0], [-1.0, 7.0]]])
    write_tracks(tmp_path / "tracks.csv", [0.0, 0.04], points, np.array([[True, False], [True, False]]))
    with open(tmp_path / "tracks.csv", newline="") as file:
        header, *lines = list(csv.reader(file))
    assert tuple(header) == COLUMNS
    assert lines == [
        ["0", "0.000000", "1", "1.500", "2.250", "1"],
        ["0", "0.000000", "2", "", "", "0"],
        ["1", "0.040000", "1", "3.000", "4.000", "1"],
        ["1", "0.040000", "2", "-1.000", "7.000", "0"],
    ]
    with pytest.raises(DataError, match="exists"):
        write_tracks(tmp_path / "tracks.csv", [0.0], points[:1], np.ones((1, 2), bool))


@pytest.mark.real
def test_masks_are_written_as_davis_has_them(tmp_path, real_data):
    for published in sorted((real_data / "davis/davis2017_results_osvos/blackswan").glob("*.png"))[:3]:
        with Image.open(published) as picture:
            ids, mode, palette, size = np.array(picture), picture.mode, picture.getpalette(), picture.size
        write_labels(tmp_path / published.name, ids)
        with Image.open(tmp_path / published.name) as written:
            np.testing.assert_array_equal(np.asarray(written), ids)
            assert (written.mode, written.size) == (mode, size)
            assert written.getpalette()[: len(palette)] == palette
