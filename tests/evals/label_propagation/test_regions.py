"""J, F and mean IoU: masks computed by hand, what DAVIS says of empty ones, and scikit-image on published masks."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.morphology import disk, isotropic_dilation
from sklearn.metrics import confusion_matrix, jaccard_score

from ssvid.errors import DataError
from ssvid.evals.label_propagation.regions import (
    ObjectScores,
    Summary,
    boundary_f,
    boundary_map,
    class_ious,
    confusion,
    davis_scores,
    dilated,
    frame_scores,
    jaccard,
    mean_iou,
    scored_frames,
    summarize,
    tolerance_px,
)


def square(size: tuple[int, int], top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(size, dtype=np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def blobs(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A few rectangles, some of them across the edge of the frame."""
    mask = np.zeros(size, dtype=bool)
    for _ in range(rng.integers(1, 5)):
        y, x = (int(rng.integers(-5, n)) for n in size)
        mask[max(y, 0) : y + int(rng.integers(1, 20)), max(x, 0) : x + int(rng.integers(1, 20))] = True
    return mask


# ---- J


def test_jaccard_of_two_squares():
    truth, found = square((8, 8), 1, 1, 4), square((8, 8), 3, 3, 4)
    assert jaccard(truth, found) == 4 / 28


@pytest.mark.parametrize(("truth", "found", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_jaccard_and_f_of_empty_and_equal_masks(truth, found, expected):
    masks = [square((20, 30), 5, 5, 6) * wanted for wanted in (truth, found)]
    assert jaccard(*masks) == expected
    assert boundary_f(*masks) == expected


def test_void_counts_for_nothing():
    truth, found = square((8, 8), 1, 1, 4), square((8, 8), 3, 3, 4)
    void = np.zeros((8, 8), dtype=bool)
    void[5:] = void[:, 5:] = True  # all that was found and is not true
    assert jaccard(truth, found, void) == 4 / 16
    assert jaccard(truth, found, np.ones((8, 8), dtype=bool)) == 1.0
    assert boundary_f(truth, found, np.ones((8, 8), dtype=bool)) == 1.0
    cut = np.where(void, 0, 1)
    assert boundary_f(truth, found, void, tolerance=0.01) == boundary_f(truth * cut, found * cut, tolerance=0.01)


def test_jaccard_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, found = blobs(rng, (40, 50)), blobs(rng, (40, 50))
        assert jaccard(truth, found) == pytest.approx(jaccard_score(truth.ravel(), found.ravel()), abs=1e-12)


# ---- F


def test_the_tolerance_is_rounded_up():
    assert tolerance_px((480, 854)) == 8  # 0.008 * 979.66 = 7.84
    assert tolerance_px((480, 910)) == 9  # 8.23
    assert tolerance_px((3, 4), tolerance=0.2) == 1  # exactly 1: it is not rounded further


def test_the_contour_of_a_square_by_hand():
    found = boundary_map(square((6, 6), 2, 2, 2))
    expected = [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],  # half a pixel up and left
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert found.astype(int).tolist() == expected


def test_the_edge_of_the_frame_is_no_contour():
    assert not boundary_map(np.ones((5, 7), dtype=bool)).any()
    corner = np.zeros((4, 4), dtype=bool)
    corner[-1, -1] = True
    found = boundary_map(corner)
    assert found.astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]]
    half = np.zeros((4, 4), dtype=bool)
    half[:, 2:] = True  # one line, down to the last row
    assert boundary_map(half).astype(int).tolist() == [[0, 1, 0, 0]] * 4


def test_f_of_a_line_that_is_off_by_some_pixels():
    # One straight contour of 100 pixels each. Within the tolerance of 2 everything matches, beyond it nothing does.
    truth = np.zeros((100, 100), dtype=bool)
    truth[:, 50:] = True
    for shift, expected in ((0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)):
        assert tolerance_px((100, 100)) == 2
        assert boundary_f(truth, np.roll(truth, shift, axis=1) & (np.arange(100) >= 50)) == expected


def test_f_where_half_is_found():
    # Two lines, one of which is found: precision 1, recall 1/2.
    truth, found = np.zeros((50, 100), dtype=bool), np.zeros((50, 100), dtype=bool)
    truth[:, 30:60] = True
    found[:, 30:] = True
    assert boundary_f(truth, found) == pytest.approx(2 / 3, abs=1e-12)


def test_dilation_is_that_of_a_disk_and_of_distances():
    rng = np.random.default_rng(1)
    for radius in (0, 1, 2, 3, 5, 8, 9, 13):
        mask = rng.random((37, 53)) < 0.01
        assert mask.any()
        expected = distance_transform_edt(~mask) <= radius
        assert np.array_equal(dilated(mask, radius), expected)
        if radius:
            assert np.array_equal(expected, isotropic_dilation(mask, radius))
    point = np.zeros((19, 19), dtype=bool)
    point[9, 9] = True
    assert np.array_equal(dilated(point, 9), disk(9).astype(bool))


def reference_f(truth: np.ndarray, found: np.ndarray, tolerance: float = 0.008) -> float:
    """From the definition, on the whole frame: contours pixel by pixel, matches by distances to all of them."""
    contours = []
    for mask in (truth, found):
        right, below, both = (np.zeros_like(mask) for _ in range(3))
        right[:, :-1], below[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        edge = (mask != right) | (mask != below) | (mask != both)
        edge[-1] = mask[-1] != right[-1]
        edge[:, -1] = mask[:, -1] != below[:, -1]
        edge[-1, -1] = False
        contours.append(edge)
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    if not contours[0].any() or not contours[1].any():
        return float(contours[0].any() == contours[1].any())
    shares = [
        isotropic_dilation(other, radius)[edge].mean()
        for edge, other in ((contours[0], contours[1]), (contours[1], contours[0]))
    ]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def test_f_is_the_plain_definition_on_random_masks():
    rng = np.random.default_rng(2)
    for _ in range(60):
        truth, found = blobs(rng, (48, 61)), blobs(rng, (48, 61))
        for tolerance in (0.008, 0.03, 0.1):
            expected = reference_f(truth, found, tolerance)
            assert boundary_f(truth, found, tolerance=tolerance) == pytest.approx(expected, abs=1e-12)


def test_f_stays_where_both_masks_move_or_are_mirrored():
    truth, found = square((60, 80), 20, 20, 12), square((60, 80), 21, 26, 11)
    value = boundary_f(truth, found)
    assert 0 < value < 1
    moved = [np.roll(mask, (9, -7), axis=(0, 1)) for mask in (truth, found)]
    assert boundary_f(*moved) == value
    assert boundary_f(found, truth) == value
    assert boundary_f(truth[::-1], found[::-1]) == pytest.approx(value, abs=1e-12)


def test_sizes_must_fit():
    with pytest.raises(DataError, match=r"a mask of 4 x 6 \(height x width\) cannot be scored on one of 4 x 5"):
        jaccard(np.zeros((4, 5)), np.zeros((4, 6)))
    with pytest.raises(DataError, match="nearest neighbor"):
        boundary_f(np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((5, 4)))


# ---- a frame, a sequence, a benchmark


def test_objects_of_a_frame_one_by_one_and_united():
    truth = np.zeros((30, 40), dtype=np.uint8)
    truth[5:15, 5:15], truth[5:15, 20:30], truth[25:, :] = 1, 3, 255
    found = np.where(truth == 3, 1, np.where(truth == 1, 3, 2)).astype(np.uint8)
    found[truth == 0] = 0
    one_by_one = frame_scores(truth, found, (1, 3, 4))
    assert one_by_one.jaccard_K.tolist() == [0.0, 0.0, 1.0]  # swapped; the object 4 is nowhere, and was found nowhere
    assert one_by_one.boundary_K[2] == 1.0
    united = frame_scores(truth, found, (1, 3), united=True)
    assert united.jaccard_K.tolist() == [1.0]
    assert united.boundary_K.tolist() == [1.0]
    assert frame_scores(truth, np.full_like(truth, 1), (1,), void=None).jaccard_K[0] == 100 / 1200
    assert frame_scores(truth, np.full_like(truth, 1), (1,)).jaccard_K[0] == 100 / 1000


def test_the_given_and_the_last_frame_are_not_scored():
    assert list(scored_frames(5)) == [1, 2, 3]
    assert list(scored_frames(6, given=3)) == [4]
    assert not scored_frames(2)
    assert not scored_frames(1)


def test_mean_recall_and_decay_by_hand():
    # Nine frames: the quarters are frames 1-3, 3-5, 5-7, 7-9.
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert summarize(values) == pytest.approx(Summary(0.5, 4 / 9, 0.8 - 0.2), abs=1e-12)
    # 50 frames: the edges 1, 13.25, 25.5, 37.75, 50 are rounded to 1, 13, 26, 38, 50.
    ramp = np.arange(1.0, 51.0)
    assert summarize(ramp).decay == pytest.approx(np.mean(range(1, 14)) - np.mean(range(38, 51)), abs=1e-12)
    assert summarize(np.array([0.7])) == (0.7, 1.0, 0.0)
    assert np.isnan(summarize(np.array([]))).all()


def test_a_long_sequence_has_a_decay_too():
    values = np.linspace(1, 0, 1001)
    assert summarize(values).decay == pytest.approx(0.75, abs=1e-12)


def test_objects_or_sequences_count_the_same():
    flat = [ObjectScores("two", i, np.full(8, j), np.full(8, f)) for i, j, f in ((1, 0.2, 0.4), (2, 0.4, 0.6))]
    one = ObjectScores("one", 1, np.full(8, 0.9), np.full(8, 0.9))
    assert one.name == "one/1"
    assert flat[0].jf == pytest.approx(0.3)
    of_2017 = davis_scores([*flat, one])
    assert of_2017.jaccard == pytest.approx((0.5, 1 / 3, 0.0), abs=1e-12)
    assert of_2017.boundary.mean == pytest.approx(1.9 / 3)
    assert of_2017.jf == pytest.approx((0.5 + 1.9 / 3) / 2)
    assert of_2017.boundary.recall == pytest.approx(2 / 3)
    united = ObjectScores("two", 0, np.full(8, 0.5), np.full(8, 0.7))
    of_2016 = davis_scores([united, one], "2016")
    assert of_2016.jaccard == pytest.approx((0.7, 0.5, 0.0), abs=1e-12)  # more than .5, and .5 is not
    with pytest.raises(DataError, match="Unite its objects"):
        davis_scores([*flat, one], "2016")
    with pytest.raises(DataError, match="the first and the last are left out"):
        davis_scores([ObjectScores("short", 1, np.array([]), np.array([]))])
    with pytest.raises(DataError, match="2018"):
        davis_scores([one], "2018")


# ---- parts


def test_a_confusion_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth, found = rng.integers(0, 6, (30, 40)), rng.integers(0, 6, (30, 40))
    assert np.array_equal(confusion(truth, found, 6), confusion_matrix(truth.ravel(), found.ravel(), labels=range(6)))
    truth[:5] = 255
    assert confusion(truth, found, 6).sum() == 25 * 40
    without = confusion(truth, found, 6, ignored=(0,))
    assert not without[0].any()
    assert np.array_equal(without[1:], confusion(truth, found, 6)[1:])
    with pytest.raises(DataError, match="class 5 was found, and there are 5"):
        confusion(truth, found, 5)


def test_mean_iou_comes_from_one_confusion():
    # Class 0: 3 right, 1 taken for 1. Class 1: 1 right, 1 taken for 0. Class 2 is nowhere.
    first = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    second = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert class_ious(first + second)[:2].tolist() == [3 / 5, 1 / 3]
    assert np.isnan(class_ious(first + second)[2])
    assert mean_iou(np.stack([first, second])) == pytest.approx((3 / 5 + 1 / 3) / 2, abs=1e-12)
    assert mean_iou(first[None]) == pytest.approx((3 / 4 + 0) / 2)
    with pytest.raises(DataError, match="no pixel"):
        mean_iou(np.zeros((2, 3, 3), dtype=int))


def test_mean_iou_is_that_of_scikit_learn():
    rng = np.random.default_rng(4)
    truth, found = rng.integers(0, 4, (5, 20, 20)), rng.integers(0, 4, (5, 20, 20))
    confusions = np.stack([confusion(t, f, 20) for t, f in zip(truth, found, strict=True)])
    expected = jaccard_score(truth.ravel(), found.ravel(), average="macro")
    assert mean_iou(confusions) == pytest.approx(expected, abs=1e-12)


# ---- published masks


@pytest.mark.real
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_the_published_masks_of_osvos_score_as_scikit_image_says(real_data, every):
    """Four sequences of DAVIS 2016: J and F of their frames against independent ones."""
    root = real_data / "davis"
    sequences = sorted(path.name for path in (root / "DAVIS2016/Annotations/480p").iterdir())
    assert len(sequences) == 4
    num_frames, objects = 0, []
    for name in sequences:
        paths = sorted((root / "DAVIS2016/Annotations/480p" / name).glob("*.png"))
        scores = []
        for path in [paths[i] for i in scored_frames(len(paths))][::every]:
            truth = (np.asarray(Image.open(path)) > 0).astype(np.uint8)
            found = np.asarray(Image.open(root / "davis2017_results_osvos" / name / path.name))
            both = frame_scores(truth, found, (1, 2), united=True)
            expected = (truth & (found > 0)).sum() / (truth | (found > 0)).sum()
            assert both.jaccard_K.tolist() == pytest.approx([expected], abs=1e-9)
            assert both.boundary_K.tolist() == pytest.approx([reference_f(truth > 0, found > 0)], abs=1e-9)
            scores.append(np.concatenate(both))
        num_frames += len(scores)
        objects.append(ObjectScores(name, 0, *np.array(scores).T))
    assert num_frames == {8: 22, 1: 171}[every]
    total = davis_scores(objects, "2016")
    assert 0.6 < total.jaccard.mean < 0.95
    assert 0.6 < total.boundary.mean < 0.95
