"""Masks: every form in which people have them, mistakes in words, and how well a few are carried to all frames."""

import numpy as np
import pytest
from PIL import Image

from ssvid.errors import DataError
from ssvid.layers.masks.cutting import cut_by_box, cut_by_mask, without_specks
from ssvid.layers.masks.propagation import propagate, warped
from ssvid.layers.masks.reading import as_objects, read_mask, read_mask_folder
from ssvid.layers.motion import grid_px
from ssvid.pictures import voc_colors

H, W = 24, 32
TWO = np.zeros((H, W), np.uint8)
TWO[4:12, 3:10], TWO[14:20, 20:30] = 1, 2
ONE = (TWO == 1).astype(np.uint8)


def palette(ids_HW):
    picture = Image.fromarray(ids_HW)
    picture.putpalette(voc_colors().tobytes())
    return picture


def with_alpha(ids_HW):
    colors = np.random.default_rng(0).integers(0, 256, (*ids_HW.shape, 3)).astype(np.uint8)
    return Image.fromarray(np.dstack([colors, 255 * ids_HW]))


def inverted_entries(ids_HW):
    """Black and white as some programs save it: entry 0 is white."""
    picture = Image.fromarray(1 - ids_HW)
    picture.putpalette([255, 255, 255, 0, 0, 0] + [7, 8, 9] * 254)
    return picture


def soft(ids_HW):
    values = 255 * ids_HW
    values[3, 3:10], values[12, 3:10] = 90, 41
    return Image.fromarray(values)


VOID_TOO = np.where(np.arange(W) == 1, 255, TWO).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "ids"),
    [
        (palette(TWO), TWO),
        (palette(VOID_TOO), TWO),
        (palette(3 * ONE), 3 * ONE),
        (Image.fromarray(TWO), TWO),
        (Image.fromarray(VOID_TOO), TWO),
        (Image.fromarray(voc_colors()[TWO]), TWO),
        (Image.fromarray(255 * ONE), ONE),
        (Image.fromarray(255 * ONE).convert("1"), ONE),
        (Image.fromarray(np.dstack([255 * ONE] * 3)), ONE),
        (with_alpha(ONE), ONE),
        (Image.fromarray(np.dstack([255 * ONE] * 3 + [np.full_like(ONE, 255)])), ONE),
        (inverted_entries(ONE), ONE),
        (soft(ONE), ONE),
    ],
)
def test_every_form_is_read(picture, ids, tmp_path):
    picture.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", H, W), ids)


def test_mistakes_are_told(tmp_path):
    def refuses(picture, words):
        picture.save(tmp_path / "bad.png")
        with pytest.raises(DataError, match=words):
            read_mask(tmp_path / "bad.png", H, W)

    with pytest.raises(DataError, match="does not exist"):
        read_mask(tmp_path / "none.png", H, W)
    refuses(palette(TWO[:-2]), r"has 32x22 px \(width x height\), and the video 32x24")
    refuses(palette(0 * TWO), "holds no object: it is empty. Paint the object: white on black")
    refuses(Image.fromarray(TWO.astype(np.uint16)), "16 bits a pixel or more")
    refuses(Image.fromarray(np.full((H, W, 3), (9, 200, 30), np.uint8)), r"holds the color \(9, 200, 30\)")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as a mask"):
        read_mask(tmp_path / "bad.png", H, W)


def test_a_folder_is_read_by_the_numbers_in_its_names(tmp_path):
    for name, ids in (("f_0009.png", TWO), ("f_0010.png", 2 * ONE), ("f_0011.png", 0 * ONE)):
        palette(ids).save(tmp_path / name)
    masks = read_mask_folder(tmp_path, H, W)
    assert list(masks) == [9, 10, 11]
    numbers, objects = as_objects(masks)
    assert numbers == (1, 2) and np.array_equal(objects[10][1], ONE == 1) and not objects[10][0].any()
    (tmp_path / "last.png").write_bytes((tmp_path / "f_0009.png").read_bytes())
    with pytest.raises(DataError, match=r"last.png in .*: the name tells no frame"):
        read_mask_folder(tmp_path, H, W)
    (tmp_path / "last.png").rename(tmp_path / "g9.png")
    with pytest.raises(DataError, match=r"are both of frame 9"):
        read_mask_folder(tmp_path, H, W)


def test_folders_without_masks_are_told(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        read_mask_folder(tmp_path / "none", H, W)
    with pytest.raises(DataError, match="holds no picture"):
        read_mask_folder(tmp_path, H, W)
    palette(0 * TWO).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="all are empty"):
        read_mask_folder(tmp_path, H, W)


# ---- cutting and carrying


def scene(num_frames=7, height=60, width=90):
    """Two textured disks over a textured ground; the masks are known."""
    rng = np.random.default_rng(1)
    ground = np.kron(rng.integers(0, 90, (height // 3, width // 3, 3)), np.ones((3, 3, 1))).astype(np.uint8)
    paint = np.kron(rng.integers(150, 256, (height // 3, width // 3, 3)), np.ones((3, 3, 1))).astype(np.uint8)
    grid = grid_px(height, width)
    frames, masks = [], []
    for t in range(num_frames):
        own = np.stack(
            [np.hypot(*np.moveaxis(grid - (x, y), 2, 0)) < 11 for x, y in ((20 + 3 * t, 20), (70 - 2 * t, 42))]
        )
        frame = ground.copy()
        for number, mask in enumerate(own):
            frame[mask] = np.roll(paint, (2 * number, 3 * t if number == 0 else -2 * t), axis=(0, 1))[mask]
            frame[mask, 2 * number] //= 2
        frames.append(frame)
        masks.append(own)
    return np.stack(frames), np.stack(masks, axis=1)


def jaccard(a, b):
    return (a & b).sum() / (a | b).sum()


def test_one_painted_frame_is_carried_to_all():
    frames, truth = scene()
    for source in (0, 3):
        found = propagate(frames, {source: truth[:, source]})
        assert found.shape == truth.shape and found.dtype == bool
        assert np.array_equal(found[:, source], truth[:, source])
        assert not found.all(axis=0).any()
        assert min(jaccard(found[n, t], truth[n, t]) for n in range(2) for t in range(7)) > 0.85
        still = [jaccard(truth[n, source], truth[n, t]) for n in range(2) for t in range(7)]
        assert min(still) < 0.5  # a mask that is copied does not do


def test_frames_take_the_nearest_mask():
    frames, truth = scene()
    wrong = np.roll(truth[:, 6], 30, axis=1)
    found = propagate(frames, {0: truth[:, 0], 6: wrong})
    assert all(jaccard(found[0, t], truth[0, t]) > 0.85 for t in range(4))
    assert all(jaccard(found[0, t], truth[0, t]) < 0.3 for t in range(4, 7))


def test_an_object_that_a_painted_frame_lacks_is_carried_on_or_gone():
    frames, truth = scene()
    later = truth[:, 4].copy()
    later[1] = False
    painted = {0: truth[:, 0], 4: later}
    assert min(jaccard(propagate(frames, painted)[1, t], truth[1, t]) for t in range(7)) > 0.85
    gone = propagate(frames, painted, absent_is_known=True)[1]
    assert [bool(mask.any()) for mask in gone] == [True, True, True, False, False, False, False]


def test_a_rough_mask_is_cut_at_the_edge():
    frames, truth = scene()
    rough = np.roll(truth[0, 0], 2, axis=1)
    cut = cut_by_mask(frames[0], rough, 4)
    assert jaccard(cut, truth[0, 0]) > 0.95 > jaccard(rough, truth[0, 0])
    empty = np.zeros_like(rough)
    assert not cut_by_mask(frames[0], empty, 4).any()
    assert cut_by_mask(frames[0], ~empty, 4).all()  # no background to learn from


def test_specks_go_and_parts_stay():
    mask = np.zeros((20, 30), bool)
    mask[2:12, 2:12], mask[5:15, 20:22], mask[18, 2:5] = True, True, True  # 100, 20 and 3 px
    kept = mask.copy()
    kept[18] = False
    assert np.array_equal(without_specks(mask), kept)
    assert not without_specks(np.zeros_like(mask)).any()


def test_a_box_is_cut_or_refused():
    frames, truth = scene()
    assert jaccard(cut_by_box(frames[0], (6, 6, 28, 28)), truth[0, 0]) > 0.9
    for box, words in (
        ((0, 0, 90, 60), "is all of the frame"),
        ((80, 50, 20, 5), "must lie in the frame, which has 90x60 px"),
        ((3, 3, 1, 9), "at least 2 px wide"),
    ):
        with pytest.raises(DataError, match=words):
            cut_by_box(frames[0], box)
    with pytest.raises(DataError, match="stands out"):
        cut_by_box(np.full((60, 90, 3), 80, np.uint8), (6, 6, 28, 28))


def test_nothing_to_carry_is_told():
    frames, truth = scene(2)
    with pytest.raises(DataError, match="no mask is given"):
        propagate(frames, {})
    with pytest.raises(DataError, match="frame 2, and there are frames 0 to 1"):
        propagate(frames, {2: truth[:, 0]})


def test_a_mask_moves_along_and_from_outside_comes_nothing():
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    moved = warped(mask, grid_px(5, 6) + np.float32([1, 0]))
    assert moved[2, 2] == 1 and moved.sum() == 1
    assert not warped(~mask, grid_px(5, 6) + np.float32([9, 0])).any()


@pytest.mark.real
@pytest.mark.parametrize(
    ("clip", "sources", "least"),
    [("blackswan", [0], 0.87), ("car-shadow", [0], 0.84), ("car-shadow", [0, 12, 23], 0.87)],
)
def test_real_masks_are_carried(real_data, clip, sources, least):
    """Mean J of the other frames, DAVIS-2016, 24 frames."""
    root = real_data / "davis" / "DAVIS2016"
    paths = [(root / kind / "480p" / clip) for kind in ("JPEGImages", "Annotations")]
    frames = np.stack([np.asarray(Image.open(paths[0] / f"{t:05d}.jpg")) for t in range(24)])
    truth = np.stack([read_mask(paths[1] / f"{t:05d}.png", 480, 854) > 0 for t in range(24)])
    found = propagate(frames, {t: truth[None, t] for t in sources})[0]
    assert np.mean([jaccard(found[t], truth[t]) for t in range(24) if t not in sources]) > least
